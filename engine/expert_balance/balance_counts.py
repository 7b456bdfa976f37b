"""What has come of moving experts between ranks, for metrics."""

import msgspec


class BalanceCounts(msgspec.Struct):
    """Since start; a rank has the same as any other.

    Attributes:
        balancedness: of the last whole window, achieved; 0 before.
        predicted: of the same load, with the maps that were chosen then; 0 before.
        num_windows: since start.
        num_skipped: windows after which nothing was worth moving.
        num_switched_layers: that took a new map.
        num_refused_layers: whose new weights came damaged.
        num_moved_bytes: sent between ranks, of the whole unit.
    """

    balancedness: float = 0.0
    predicted: float = 0.0
    num_windows: int = 0
    num_skipped: int = 0
    num_switched_layers: int = 0
    num_refused_layers: int = 0
    num_moved_bytes: int = 0
