"""The id that every answer carries: the client's own, or a new one."""

import re
import uuid
from collections.abc import Mapping
from contextvars import ContextVar

HEADER = "x-request-id"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""That of the request that is being answered; empty where there is none."""
_MAX_CHARS = 128
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._:/+=-]")


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's `X-Request-Id`, less what does not belong in a header or a log; or a new one."""
    given = _NOT_IN_IDS.sub("", headers.get(HEADER, ""))[:_MAX_CHARS]
    return given or uuid.uuid4().hex
