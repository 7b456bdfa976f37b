"""`--kv-events-config`: what is asked of the publisher of cache events, in vLLM's words."""

import msgspec

from leadline.engine.errors import ConfigError


class KVEventsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`--kv-events-config`, with vLLM's names.

    Attributes:
        enable_kv_cache_events: publish at all.
        publisher: `zmq`, or `null` for none.
        endpoint: address to bind, for example `tcp://*:5557`.
        replay_endpoint: address of the replay socket; None for none.
        buffer_steps: batches that are remembered for it.
        hwm: batches that wait for a slow subscriber before some are dropped.
        max_queue_size: accepted for vLLM's sake: nothing is queued before the socket's own queue.
        topic: first frame of each message.
    """

    enable_kv_cache_events: bool = False
    publisher: str = "zmq"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int = 100_000
    max_queue_size: int = 100_000
    topic: str = ""

    @property
    def is_on(self) -> bool:
        """Whether anything is published."""
        return self.enable_kv_cache_events and self.publisher == "zmq"

    def of_rank(self, rank: int) -> "KVEventsConfig":
        """As a data parallel rank publishes: its port is `rank` above the given one, as in vLLM.

        Addresses without ports get the rank as a suffix.
        """
        replay = self.replay_endpoint
        return msgspec.structs.replace(
            self,
            endpoint=_offset(self.endpoint, rank),
            replay_endpoint=None if replay is None else _offset(replay, rank),
        )


def _offset(address: str, rank: int) -> str:
    if rank == 0:
        return address
    place, colon, port = address.rpartition(":")
    if address.startswith("tcp:") and port.isdecimal():
        return f"{place}{colon}{int(port) + rank}"
    return f"{address}-dp{rank}"


def parse_kv_events_config(text: str) -> KVEventsConfig:
    """The config written as JSON.

    Raises:
        ConfigError: it is no such config; names what is allowed.
    """
    try:
        config = msgspec.json.decode(text, type=KVEventsConfig)
    except msgspec.MsgspecError as error:
        names = ", ".join(KVEventsConfig.__struct_fields__)
        raise ConfigError(f"kv_events_config is {text!r}: {error}; fields: {names}") from error
    if config.publisher not in ("zmq", "null"):
        raise ConfigError(
            f"kv_events_config has publisher {config.publisher!r}; allowed: 'zmq', 'null'"
        )
    if config.buffer_steps < 1 or config.hwm < 0:
        raise ConfigError("kv_events_config: buffer_steps is at least 1, hwm at least 0")
    return config
