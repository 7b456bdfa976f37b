"""Whatever is sent to the Responses API, the answer is well formed and the service goes on."""

import json
from typing import Any

import openai
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.server.responses.request import CHAT_FIELDS, ResponseRequest

FIELDS = sorted({*ResponseRequest.model_fields, *CHAT_FIELDS, *ResponseRequest.not_honoured})
ITEM_TYPES = [
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
    "function",
]
PART_TYPES = ["input_text", "output_text", "refusal", "input_image"]
WORDS = st.sampled_from([*ITEM_TYPES, *PART_TYPES, "user", "assistant", "auto", "x", ""])
PLACES = [
    "type",
    "role",
    "content",
    "text",
    "refusal",
    "id",
    "call_id",
    "name",
    "arguments",
    "output",
    "summary",
    "status",
]
KEYS = st.sampled_from([*PLACES, "effort", "format", "schema", "parameters", "encrypted_content"])
numbers = st.sampled_from([-1, 0, 1, 2.5, 2**31, 2**64, 10**400])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)
items = st.one_of(WORDS, st.lists(st.dictionaries(KEYS, values, max_size=6), max_size=4))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(items, st.dictionaries(st.sampled_from(FIELDS), values, max_size=2))
def test_any_body(service: Any, given_items: Any, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "tiny", "input": given_items} | fields).encode()
    response = service.post("/v1/responses", body)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code == 200:
        if not response.headers["content-type"].startswith("text/event-stream"):
            openai.types.responses.Response.model_validate(response.json())
        return
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 1000
    assert error["code"]
