"""Files that are not what their name says: empty, cut short, a Git LFS pointer, a web page."""

import json
from pathlib import Path

_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype html", b"<html")
_HEAD_BYTES = 512
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


def fault_of(path: Path) -> str | None:
    """What is wrong with a file whatever it should hold, and what to do; None if nothing shows.

    Reads its beginning; a file that is not there has no fault.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not head:
        return "is empty (0 bytes); fetch it again"
    if head.startswith(_LFS):
        sizes = [line.split()[1] for line in head.splitlines() if line.startswith(b"size ")]
        size = f" of {sizes[0].decode('ascii', 'replace')} bytes" if sizes else ""
        return f"is a Git LFS pointer to a file{size}, not the file itself; run `git lfs pull`"
    if head.lstrip().lower().startswith(_HTML):
        return "is a web page, not the file itself; fetch it again, logged in if need be"
    return None


def safetensors_fault(path: Path) -> str | None:
    """The same of a safetensors file, its length against its header included."""
    if (fault := fault_of(path)) is not None:
        return fault
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if header_bytes > min(num_bytes, _MAX_HEADER_BYTES):
                return (
                    f"has {num_bytes} bytes, but begins as if its header had {header_bytes}; it is "
                    "cut short or no safetensors file: fetch it again"
                )
            header = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        expected = _LENGTH_BYTES + header_bytes + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if num_bytes != expected:
        return f"has {num_bytes} bytes, but by its header {expected}; fetch it again"
    return None
