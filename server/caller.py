"""Who sends a request, and when: what the engine's queue goes by."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from leadline.server.errors import invalid
from leadline.server.request_id import HEADER
from leadline.server.sampling_types import MAX_PRIORITY

PRIORITY_HEADER = "x-vllm-priority"
SESSION_HEADER = "x-session-id"
TRACE_HEADERS = ("traceparent", "tracestate")
_INTEGER = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_HASH_CHARS = 16
MAX_SESSION_CHARS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the headers say.

    Attributes:
        tenant: stands for the caller's key; empty if there is none.
        priority: for requests that do not say themselves; lower is earlier.
        arrival_s: by `time.monotonic`, which the engine's process shares.
        trace_headers: where the request stands in the caller's trace (W3C Trace Context).
        session_id: stands for the caller's session; empty if there is none.
        request_id: of the API request, as its answer's header has it; empty if it has none.
    """

    tenant: str = ""
    priority: int = 0
    arrival_s: float = field(default_factory=time.monotonic)
    trace_headers: dict[str, str] = field(default_factory=dict)
    session_id: str = ""
    request_id: str = ""


def caller_of(headers: Mapping[str, str]) -> Caller:
    """The caller of a request.

    Raises:
        BadRequestError: the priority is no integer, or too large; the session's name is too long.
    """
    tenant = _tenant(headers)
    return Caller(
        tenant=tenant,
        priority=_priority(headers),
        session_id=_session(headers, tenant),
        trace_headers={name: headers[name] for name in TRACE_HEADERS if name in headers},
        request_id=headers.get(HEADER, ""),
    )


def _tenant(headers: Mapping[str, str]) -> str:
    """A hash of the key that the caller shows: the key itself goes nowhere."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else ""
    key = key or headers.get("x-api-key", "").strip()
    return hashlib.sha256(key.encode()).hexdigest()[:_HASH_CHARS] if key else ""


def _session(headers: Mapping[str, str], tenant: str) -> str:
    """A hash of the session's name, which is the tenant's own."""
    name = headers.get(SESSION_HEADER, "").strip()
    if len(name) > MAX_SESSION_CHARS:
        raise invalid(
            "session",
            f"the header X-Session-ID has {len(name)} characters; allowed: at most "
            f"{MAX_SESSION_CHARS}",
        )
    whole = f"{tenant}\0{name}".encode()
    return hashlib.sha256(whole).hexdigest()[:_HASH_CHARS] if name else ""


def _priority(headers: Mapping[str, str]) -> int:
    text = headers.get(PRIORITY_HEADER, "0").strip()
    if not _INTEGER.fullmatch(text) or abs(int(text)) > MAX_PRIORITY:
        raise invalid(
            "priority",
            f"the header X-Vllm-Priority is {text[:40]!r}; "
            f"allowed: an integer from {-MAX_PRIORITY} to {MAX_PRIORITY}",
        )
    return int(text)
