"""Whatever is sent, the answer is well formed and the service goes on."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.server.chat_types import ChatRequest
from leadline.server.completion_types import CompletionRequest
from leadline.server.not_honoured import NOT_HONOURED

FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields, *NOT_HONOURED})
numbers = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "thinking", "x"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)
bodies = st.one_of(values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(["chat/completions", "completions"]), bodies, st.booleans())
def test_any_body(service: Any, path: str, body: Any, is_complete: bool) -> None:
    if is_complete and isinstance(body, dict):
        base = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
        del base["prompt" if path.startswith("chat") else "messages"]
        body = {**base, **body}
    response = service.post(f"/v1/{path}", json.dumps(body).encode())
    assert response.status_code in (200, 400, 404), response.text
    assert response.headers["x-request-id"]
    if response.status_code == 200:
        return
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 1000
    assert error["code"]
