"""What the server logs: lines with the id of their request, one for each request that has ended."""

import logging

from leadline.engine.logs import LogSettings
from leadline.server.config import KEY_FIELDS, ServerConfig
from leadline.server.request_id import REQUEST_ID
from leadline.server.request_record import RequestRecord

logger = logging.getLogger(__name__)

# uvicorn says so of a stream that is cut to tell of a failure (`sse.EventStream`), which has been
# logged where it happened, or is the client's to know.
_CUT_ON_PURPOSE = "ASGI callable returned without completing response."


def set_up_logging(config: ServerConfig, *, worker: int | None = None) -> None:
    """Log as the user wants it, in this process and in those that it starts.

    Args:
        config: says how.
        worker: the number of the API worker that this process is; None for no worker.
    """
    settings = LogSettings(
        format="json" if config.log_format == "json" else "text",
        level=config.log_level,
        max_chars=config.limits.log_chars,
    )
    secrets = [key for name in KEY_FIELDS for key in getattr(config, name)]
    filters = [_RequestId(), _NoNoise(), *([] if worker is None else [_WorkerNumber(worker)])]
    settings.set_up(*filters, secrets=secrets)
    settings.leave_to_children()
    # Its news of starting and stopping would only repeat ours.
    level = getattr(logging, config.log_level.upper())
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))


class _RequestId(logging.Filter):
    """Gives each record the id of the request that is being answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


class _WorkerNumber(logging.Filter):
    """Gives each record the number of the API worker whose it is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.fields = getattr(record, "fields", {}) | {"worker": self._number}
        return True


class _NoNoise(logging.Filter):
    """Drops what is no news."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name == "uvicorn.error" and record.msg == _CUT_ON_PURPOSE)


def log_request(record: RequestRecord) -> None:
    """A line about a request that has ended: numbers, and nothing of what it said."""
    first = record.choices[0]
    fields: dict[str, object] = {
        "response_id": record.response_id,
        "model": record.model,
        "prompt_tokens": record.num_prompt_tokens,
        "cached_tokens": record.num_cached_tokens,
        "output_tokens": record.num_tokens,
        "choices": len(record.choices),
        "finish_reason": ",".join(record.reasons),
    }
    if first.timing is not None:
        fields["queue_s"] = round(first.timing.queue_s, 6)
    if record.first_token_s is not None:
        fields["ttft_s"] = round(record.first_token_s - record.arrived_s, 6)
    if record.end_s is not None:
        fields["e2e_s"] = round(record.end_s - record.arrived_s, 6)
    logger.info("request finished", extra={"fields": fields})
