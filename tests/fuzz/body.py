"""Bytes as the body of a request: validated, or refused with an ApiError (needs atheris).

python -m tests.fuzz.body -runs=100000
"""

import json
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["leadline"]):
    from leadline.server.body import parse_body
    from leadline.server.chat_types import ChatRequest
    from leadline.server.completion_types import CompletionRequest
    from leadline.server.errors import ApiError
    from leadline.server.field_limits import check_limits
    from leadline.server.limits import Limits
    from leadline.server.messages.request import MessagesRequest

TYPES = (ChatRequest, CompletionRequest, MessagesRequest)
BASES: tuple[dict[str, Any], ...] = (
    {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    {"model": "m", "prompt": "x"},
    {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]},
)
WORDS = ["type", "text", "role", "content", "function", "name", "json_schema", "schema", "x", ""]
SCALARS = [None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -2.5, 1e308, *WORDS]


def value(provider: Any, depth: int = 0) -> Any:
    kind = provider.ConsumeIntInRange(0, 3 if depth < 4 else 1)
    if kind == 0:
        return provider.PickValueInList(SCALARS)
    if kind == 1:
        return provider.ConsumeUnicodeNoSurrogates(8)
    size = range(provider.ConsumeIntInRange(0, 3))
    if kind == 2:
        return [value(provider, depth + 1) for _ in size]
    return {provider.PickValueInList(WORDS): value(provider, depth + 1) for _ in size}


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    kind = provider.ConsumeIntInRange(0, 2)
    body = dict(BASES[kind])
    names = sorted(TYPES[kind].model_fields)
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        body[provider.PickValueInList(names)] = value(provider)
    try:
        fields = parse_body(json.dumps(body).encode(), TYPES[kind])
        fields.check()
        if isinstance(fields, ChatRequest | CompletionRequest):
            check_limits(fields, Limits())
            fields.grammar()
    except ApiError as error:
        if error.status >= 500:
            raise ValueError(body) from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
