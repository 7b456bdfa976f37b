"""Streams that wait, fail, or lose their client; and answers whose client leaves."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from leadline.engine.errors import EngineDeadError
from leadline.engine.request import FinishReason

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "tiny", "messages": MESSAGES}


@pytest.fixture
def endless(serve: Callable[..., Any]) -> Any:
    """A service that never ends an answer by itself."""
    return serve(text=lambda request: "x" * 100, step_s=60.0)


@pytest.mark.parametrize("num_choices", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_is_an_abort(
    endless: Any, stream: bool, num_choices: int
) -> None:
    body = {**CHAT, "stream": stream, "n": num_choices}
    with pytest.raises(httpx.ReadTimeout):
        endless.http.post("/v1/chat/completions", json=body, timeout=0.3)
    assert endless.engine.wait_finished(num_choices) == [FinishReason.ABORT] * num_choices
    assert wait_idle(endless)


def wait_idle(service: Any) -> bool:
    """Wait until the server answers nobody."""
    for _ in range(500):
        if service.state.in_flight.count == 0:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("num_choices", [1, 2])
def test_a_client_that_leaves_within_a_stream_is_an_abort(
    serve: Callable[..., Any], num_choices: int
) -> None:
    service = serve(text=lambda request: "x" * 150, step_s=0.01)
    with service.client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, n=num_choices
    ) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    assert service.engine.wait_finished(num_choices) == [FinishReason.ABORT] * num_choices
    assert wait_idle(service)
    assert service.complete().status_code == 200


def test_a_batch_of_prompts_is_aborted_as_a_whole(endless: Any) -> None:
    body = {"model": "tiny", "prompt": ["a", "b", "c"]}
    with pytest.raises(httpx.ReadTimeout):
        endless.http.post("/v1/completions", json=body, timeout=0.3)
    assert endless.engine.wait_finished(3) == [FinishReason.ABORT] * 3


def test_an_aborted_request_is_counted(endless: Any) -> None:
    with pytest.raises(httpx.ReadTimeout):
        endless.http.post("/v1/chat/completions", json=CHAT, timeout=0.3)
    endless.engine.wait_finished()
    assert wait_idle(endless)
    line = b'leadline:request_success_total{finished_reason="abort",model_name="tiny"} 1.0'
    assert line in endless.state.metrics.render()


def test_a_stream_that_waits_sends_comments(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "a", step_s=0.25, state={"keep_alive_s": 0.05})
    text = service.chat(stream=True).text
    assert text.startswith(": keep-alive\n\n")
    assert text.count(": keep-alive\n\n") >= 2
    assert text.endswith("data: [DONE]\n\n")
    stream = service.client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "a"


def test_a_stream_that_flows_sends_none(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "abc")
    assert "keep-alive" not in service.chat(stream=True).text


@pytest.mark.parametrize("failure", [FinishReason.ERROR, FinishReason.ABORT])
def test_a_failure_within_a_stream_is_an_event_and_a_cut(
    serve: Callable[..., Any], failure: FinishReason
) -> None:
    service = serve(text=lambda request: "abc", ends=False, failure=failure)
    body = {**CHAT, "stream": True}
    received: list[bytes] = []
    with (
        service.http.stream("POST", "/v1/chat/completions", json=body) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(answer.iter_raw())
    assert answer.status_code == 200
    *_, last, empty = b"".join(received).split(b"\n\n")
    assert last.startswith(b'data: {"error":{')
    assert empty == b""
    assert not any(b"[DONE]" in data for data in received)


def test_the_client_sees_a_failure_within_a_stream(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "abc", ends=False, failure=FinishReason.ERROR)
    stream = service.client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="not finite"):
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(pieces) == "abc"


def test_a_failure_of_one_choice_ends_all(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "abc", ends=False, failure=FinishReason.ERROR)
    with pytest.raises(openai.APIError):
        list(
            service.client.chat.completions.create(
                model="tiny", messages=MESSAGES, stream=True, n=3
            )
        )
    assert wait_idle(service)


@pytest.mark.parametrize(
    ("failure", "status"), [(FinishReason.ERROR, 500), (FinishReason.ABORT, 503)]
)
def test_a_failure_without_a_stream_is_an_error(
    serve: Callable[..., Any], failure: FinishReason, status: int
) -> None:
    service = serve(text=lambda request: "abc", ends=False, failure=failure)
    response = service.chat()
    assert response.status_code == status
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_is_gone(service: Any, stream: bool) -> None:
    service.engine.alive = False
    service.engine.refusal = EngineDeadError("killed by signal 9")
    response = service.chat(stream=stream)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"
    assert int(response.headers["retry-after"]) >= 1


async def test_many_streams_at_once(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: str(request.prompt_ids), chunk=2)

    async def ask(client: openai.AsyncOpenAI, index: int) -> str:
        text = ""
        async for chunk in await client.completions.create(
            model="tiny", prompt=[index, index + 1], stream=True, max_tokens=50
        ):
            text += chunk.choices[0].text
        return text

    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="-", max_retries=0
    ) as client:
        texts = await asyncio.gather(*(ask(client, index) for index in range(30)))
    assert texts == [f"[{index}, {index + 1}]" for index in range(30)]
