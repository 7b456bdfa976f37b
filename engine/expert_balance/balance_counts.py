"""What has come of moving experts between ranks, for metrics."""

import msgspec


class BalanceCounts(msgspec.Struct):
    """What has come of it.

    Attributes:
        balancedness: of the last whole window, achieved; None before.
        predicted: when maps were last chosen, for the load that they were chosen for.
        num_windows: since start.
        num_skipped: windows after which nothing was worth moving.
        num_switched_layers: that took a new map.
        num_refused_layers: whose new weights came damaged.
        num_moved_bytes: sent between ranks, of the whole unit.
    """

    balancedness: float | None = None
    predicted: float | None = None
    num_windows: int = 0
    num_skipped: int = 0
    num_switched_layers: int = 0
    num_refused_layers: int = 0
    num_moved_bytes: int = 0
