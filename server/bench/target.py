"""The server under test: which models it has, how it tokenises, and what it has counted."""

from typing import Any

import msgspec

from leadline.server.bench.errors import BenchError
from leadline.server.bench.event import refusal_text
from leadline.server.bench.http_client import HttpClient, HttpError, is_ok


async def first_model(http: HttpClient, base_url: str) -> str:
    """The name of the server's first model.

    Raises:
        BenchError: no server that has models answers there.
    """
    try:
        status, body = await http.get("/v1/models")
    except HttpError as error:
        raise BenchError(
            f"no server answers at {base_url} ({error}); start one with `leadline serve`, or give "
            "its address with --base-url"
        ) from error
    if not is_ok(status):
        raise BenchError(f"{base_url}/v1/models answers: {refusal_text(status, body)}")
    try:
        return str(msgspec.json.decode(body)["data"][0]["id"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        raise BenchError(f"{base_url}/v1/models lists no model; name one with --model") from None


async def tokenize(http: HttpClient, model: str, text: str) -> list[int] | None:
    """The token ids of a text, without special tokens; None if the server does not tell."""
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    tokens = await _post(http, "/tokenize", body)
    match tokens:
        case {"tokens": [int(), *_] as ids}:
            return list(ids)
    return None


async def _post(http: HttpClient, path: str, body: Any) -> Any:
    """The JSON that is answered; None if there is none."""
    try:
        status, answer = await http.post(path, body)
        return msgspec.json.decode(answer) if is_ok(status) else None
    except (HttpError, msgspec.MsgspecError):
        return None
