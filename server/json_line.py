"""JSON that is one line, for whatever a client takes for a line."""

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
# Some clients split a stream's lines where Unicode does; JSON leaves these as they are.
_LINE_ENDS = (
    ("\x85".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def encode_line(value: Any) -> bytes:
    """A value as JSON that is one line."""
    encoded = _encode(value)
    if not encoded.isascii():
        for raw, escaped in _LINE_ENDS:
            encoded = encoded.replace(raw, escaped)
    return encoded
