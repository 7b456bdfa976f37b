"""Whatever is refused by the Messages API is refused in Anthropic's shape."""

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import pytest

from leadline.engine.errors import QueueFullError
from leadline.engine.request import FinishReason
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.doorway import Doorway

PATH = "/v1/messages"
BODY: Any = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}


def check(response: httpx.Response, status: int, error_type: str) -> str:
    """The message of an error, all else of which is as it must be."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == error_type
    assert response.headers["request-id"] == response.headers["x-request-id"] == body["request_id"]
    return str(body["error"]["message"])


def block(**fields: Any) -> Any:
    return {"messages": [{"role": "user", "content": [fields]}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        (block(type="image", source={}), "messages[0].content[0].type"),
        (block(type="document", source={}), "messages[0].content[0].type"),
        (block(type="tool_use", id="1", name="f", input={}), "messages[0].content[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {}}] * 2}, "tools[1].name"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "budget_tokens"),
        ({"thinking": {"type": "between_tools"}}, "thinking"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "x"}, "container"),
        ({"context_management": {"edits": [{"type": "x"}]}}, "context_management"),
        ({"temperature": 2.1}, "temperature"),
        ({"service_tier": "priority"}, "service_tier"),
    ],
)
def test_refusals_name_the_field(service: Any, fields: Any, named: str) -> None:
    message = check(service.post(PATH, BODY | fields), 400, "invalid_request_error")
    assert named in message
    assert not service.engine.requests


def test_what_clients_send_unasked_is_taken(service: Any) -> None:
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}]
    fields = {"context_management": {"edits": edits}, "metadata": {"user_id": "u"}}
    response = service.post(PATH, BODY | fields | {"service_tier": "auto", "nonsense": 1})
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "nonsense"
    assert response.headers["request-id"] == response.headers["x-request-id"]


def test_errors_by_status(service: Any, serve: Callable[..., Any], switchboard: Any) -> None:
    check(service.post(PATH, b"{"), 400, "invalid_request_error")
    check(service.post(PATH, BODY | {"model": "x"}), 404, "not_found_error")
    check(service.http.get(PATH), 405, "invalid_request_error")
    check(service.http.post(f"{PATH}/batches"), 404, "not_found_error")
    check(service.post(PATH, b" " * (2**25 + 1)), 413, "request_too_large")
    headers = {"anthropic-version": "2023-06-01"}
    check(service.http.get("/v1/models/x", headers=headers), 404, "not_found_error")
    full = serve(refusal=QueueFullError("full", retry_after_s=3))
    response = full.post(PATH, BODY)
    check(response, 429, "rate_limit_error")
    assert response.headers["retry-after"] == "3"
    check(serve(failure=FinishReason.ERROR).post(PATH, BODY), 500, "api_error")
    service.state.draining = True
    check(service.post(PATH, BODY), 503, "overloaded_error")
    url = switchboard.add(create_app(service.state, access=Access.of(api=["k"])))
    check(httpx.post(f"{url}{PATH}", json=BODY, verify=False), 401, "authentication_error")
    assert "error" in service.post("/v1/completions", {}).json()


def test_a_failure_within_a_stream(serve: Callable[..., Any], anthropic_of: Any) -> None:
    service = serve(text=lambda request: "abc", ends=False, failure=FinishReason.ERROR)
    received: list[bytes] = []
    with (
        service.http.stream("POST", PATH, json=BODY | {"stream": True}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(answer.iter_raw())
    *_, last, empty = b"".join(received).split(b"\n\n")
    assert empty == b""
    name, data = last.split(b"\n")
    assert name == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))
    assert error["error"]["type"] == "api_error"
    assert error["request_id"] == answer.headers["request-id"]
    client = anthropic_of(service.url)
    with (
        pytest.raises(anthropic.APIStatusError, match="not finite"),
        client.messages.stream(**BODY) as stream,
    ):
        stream.get_final_message()


def test_a_stream_that_waits_sends_pings(serve: Callable[..., Any], anthropic_of: Any) -> None:
    service = serve(text=lambda request: "a", step_s=0.25, state={"keep_alive_s": 0.05})
    text = service.post(PATH, BODY | {"stream": True}).text
    assert 'event: ping\ndata: {"type":"ping"}\n\n' in text
    assert text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    with anthropic_of(service.url).messages.stream(**BODY) as stream:
        assert stream.get_final_text() == "a"


def test_while_the_engine_loads(switchboard: Any) -> None:
    url = switchboard.add(Doorway())
    check(httpx.post(f"{url}{PATH}", json=BODY, verify=False), 503, "overloaded_error")
    answer = httpx.post(f"{url}/v1/completions", json=BODY, verify=False).json()
    assert list(answer) == ["error"]
