"""Which requests the engine is computing: a trace in a file that outlives a killed process."""

import mmap
import struct
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

MAX_ID_BYTES = 256
_HEADER = struct.Struct("<QQ")  # completed steps, slot in use
_LENGTH = struct.Struct("<I")
_NUM_STEPS = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a dead engine left.

    Attributes:
        num_steps: steps that it completed.
        request_ids: requests with rows in the steps that were in flight last.
    """

    num_steps: int = 0
    request_ids: list[str] = field(default_factory=list)


class RunningTrace:
    """Writes the trace: mapped memory, which the kernel keeps when the process is killed.

    A list is written beside the one that holds, and holds itself once it is whole.
    """

    def __init__(self, path: Path, max_requests: int) -> None:
        """`max_requests`: most requests at a time."""
        self._slot_bytes = _LENGTH.size + 8 + max_requests * (MAX_ID_BYTES + 8)
        num_bytes = _HEADER.size + 2 * self._slot_bytes
        with path.open("wb+") as file:
            file.truncate(num_bytes)  # sparse: pages that nobody writes cost nothing
            self._memory = mmap.mmap(file.fileno(), num_bytes)
        self._encoder = msgspec.msgpack.Encoder()
        self._slot = self._num_steps = 0
        self._request_ids: Set[str] = frozenset()

    def run(self, request_ids: Set[str]) -> None:
        """These are in the steps in flight, the one included that is to begin."""
        if request_ids == self._request_ids:
            return
        self._request_ids = request_ids
        data = self._encoder.encode(sorted(request_ids))
        self._slot = 1 - self._slot
        start = _HEADER.size + self._slot * self._slot_bytes
        _LENGTH.pack_into(self._memory, start, len(data))
        self._memory[start + _LENGTH.size : start + _LENGTH.size + len(data)] = data
        _NUM_STEPS.pack_into(self._memory, _NUM_STEPS.size, self._slot)

    def complete_step(self) -> None:
        """A step has been completed."""
        self._num_steps += 1
        _NUM_STEPS.pack_into(self._memory, 0, self._num_steps)


def read_trace(path: Path) -> Trace:
    """The trace of an engine that is dead; an empty one if it left none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Trace()
    if len(data) < _HEADER.size:
        return Trace()
    num_steps, slot = _HEADER.unpack_from(data)
    start = _HEADER.size + slot * ((len(data) - _HEADER.size) // 2)
    (length,) = _LENGTH.unpack_from(data, start)
    payload = data[start + _LENGTH.size : start + _LENGTH.size + length]
    return Trace(num_steps, msgspec.msgpack.decode(payload, type=list[str]) if length else [])
