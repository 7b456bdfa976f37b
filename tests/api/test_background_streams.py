"""Streams in the background: a client that leaves comes back, with OpenAI's own client."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import openai
import pydantic
import pytest

from leadline.engine.errors import QueueFullError
from leadline.engine.request import FinishReason
from leadline.server.caller import caller_of
from leadline.server.limits import Limits
from leadline.server.responses import store
from leadline.server.responses.records import LOST_S
from leadline.server.responses.store import ResponseStore

WAIT_S = 10.0
TYPES = [
    "created",
    "queued",
    "in_progress",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
    "completed",
]


def ask(service: Any, **fields: Any) -> Any:
    fields = {"model": "tiny", "input": "Hi", "background": True, "stream": True} | fields
    return service.client.responses.create(**fields)


def replay(service: Any, response_id: str, **fields: Any) -> Any:
    return service.client.responses.retrieve(response_id, stream=True, **fields)


def names_of(events: list[Any]) -> list[str]:
    """Their types, each once where they follow each other."""
    names = [event.type.removeprefix("response.") for event in events]
    return [name for place, name in enumerate(names) if names[place - 1 : place] != [name]]


def wait_until_completed(service: Any, response_id: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while service.client.responses.retrieve(response_id).status != "completed":
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def checked(events: list[Any]) -> list[Any]:
    """The events, if they are all there, and of types that the client knows."""
    known: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(
        openai.types.responses.ResponseStreamEvent
    )
    for event in events:
        known.validate_python(event.to_dict())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def test_the_whole_stream(serve: Callable[..., Any]) -> None:
    service = serve()
    events = checked(list(ask(service)))
    assert names_of(events) == TYPES
    assert [event.response.status for event in events[:3]] == ["queued", "queued", "in_progress"]
    response = events[-1].response
    assert response.output_text == "Hello, world!"
    assert response == service.client.responses.retrieve(response.id)
    assert list(replay(service, response.id)) == events
    assert list(replay(service, response.id, starting_after=4)) == events[5:]
    assert list(replay(service, response.id, starting_after=1000)) == []


def test_a_client_that_leaves_comes_back(serve: Callable[..., Any]) -> None:
    """It has gone on without the client, which gets what is missing, in order."""
    service = serve(step_s=0.01, text=lambda request: "x" * 150)
    seen = []
    with ask(service) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = seen[0].response.id
    for _ in range(2):
        with replay(service, response_id, starting_after=seen[-1].sequence_number) as stream:
            seen += [event for event, _ in zip(stream, range(20), strict=False)]
    seen += replay(service, response_id, starting_after=seen[-1].sequence_number)
    assert checked(seen)[-1].response.output_text == "x" * 150
    assert service.engine.finished == []


def test_several_readers_see_the_same(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.005, text=lambda request: "x" * 100)
    with ask(service) as stream:
        events = [next(stream)]
        with ThreadPoolExecutor() as pool:
            others = pool.map(lambda _: list(replay(service, events[0].response.id)), range(3))
            events += stream
            for other in others:
                assert other == events


def test_the_helper_of_the_client_goes_on(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.01, text=lambda request: "x" * 50)
    with service.client.responses.stream(model="tiny", input="Hi", background=True) as stream:
        response_id = next(iter(stream)).response.id
    with service.client.responses.stream(response_id=response_id) as stream:
        assert stream.get_final_response().output_text == "x" * 50


def test_another_process_tells_it_too(serve: Callable[..., Any]) -> None:
    """Two applications over one store: what one makes, the other streams, and cancels."""
    maker = serve(step_s=0.01, text=lambda request: "x" * 150)
    other = serve()
    other.state.responses = ResponseStore(
        maker.state.responses.directory, max_responses=10, max_bytes=10**6
    )
    with ask(maker) as stream:
        events = [next(stream)]
        response_id = events[0].response.id
        events += replay(other, response_id, starting_after=0)
    assert checked(events)[-1].response.output_text == "x" * 150
    with ask(maker) as stream:
        response_id = next(stream).response.id
        assert other.client.responses.cancel(response_id).status == "cancelled"
    assert maker.engine.wait_finished() == [FinishReason.ABORT]
    other.state.responses.close()


def test_it_is_cancelled(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.02, text=lambda request: "x" * 150)
    with ask(service) as stream:
        events = [next(stream)]
        events += stream if service.client.responses.cancel(events[0].response.id) else []
    assert checked(events)[-1].type == "response.incomplete"
    assert events[-1].response.status == "cancelled"
    assert list(replay(service, events[0].response.id)) == events


@pytest.mark.parametrize(
    "script",
    [
        {"failure": FinishReason.ERROR},
        {"refusal": QueueFullError("the queue is full", retry_after_s=1)},
        {"refusal": ZeroDivisionError()},
    ],
)
def test_it_fails(serve: Callable[..., Any], script: Any) -> None:
    service = serve(**script)
    events = checked(list(ask(service)))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message
    assert events[-1].response == service.client.responses.retrieve(events[-1].response.id)


def error_of(stream: Any) -> Any:
    """The last event of a stream that is cut."""
    events: list[Any] = []
    with pytest.raises(openai.APIConnectionError):
        events.extend(stream)
    assert events[-1].type == "error"
    return events[-1]


def test_a_deleted_one_breaks_off(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.02, text=lambda request: "x" * 150)
    with ask(service) as stream:
        service.client.responses.delete(next(stream).response.id)
        assert "deleted" in error_of(stream).message
    assert service.engine.wait_finished() == [FinishReason.ABORT]


def test_too_many_events_break_the_stream_off_and_not_the_response(
    serve: Callable[..., Any],
) -> None:
    limits = Limits(stored_response_bytes=9000)
    service = serve(text=lambda request: "x" * 150, state={"limits": limits})
    with ask(service) as stream:
        response_id = next(stream).response.id
        assert "no more room" in error_of(stream).message
    wait_until_completed(service, response_id)
    with pytest.raises(openai.NotFoundError, match="no more room"):
        replay(service, response_id)


def test_a_lost_one_is_told_as_failed(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that made it is gone: nobody says that it goes on."""
    service = serve()
    responses = service.state.responses
    done = ask(service, stream=False, background=False)
    owner = caller_of({"authorization": "Bearer -"}).tenant
    stored = responses.get(done.id, owner)
    assert stored is not None
    responses.put(replace(stored, id="resp_1", status="in_progress", log="open"))
    replays = replay(service, "resp_1")
    later = time.monotonic() + LOST_S + 1
    monkeypatch.setattr(store, "time", SimpleNamespace(monotonic=lambda: later))
    failed = service.client.responses.retrieve("resp_1")
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    assert service.client.responses.retrieve("resp_1") == failed
    for stream in (replays, replay(service, "resp_1")):
        (event,) = stream
        assert (event.type, event.response) == ("response.failed", failed)


@pytest.mark.parametrize("fields", [{"background": False}, {"stream": False}])
def test_others_are_not_streamed_again(serve: Callable[..., Any], fields: Any) -> None:
    service = serve()
    made = ask(service, **fields)
    response = list(made)[-1].response if fields.get("stream", True) else made
    with pytest.raises(openai.BadRequestError, match="'background' and 'stream'"):
        replay(service, response.id)
    with pytest.raises(openai.NotFoundError):
        service.client.with_options(api_key="other").responses.retrieve(response.id, stream=True)
