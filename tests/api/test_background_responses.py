"""Responses in the background: asked for later, cancelled, failed, with OpenAI's own client."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from leadline.engine.errors import QueueFullError
from leadline.engine.request import FinishReason

WAIT_S = 10.0


def ask(service: Any, **fields: Any) -> Any:
    fields = {"model": "tiny", "input": "Hi", "background": True} | fields
    return service.client.responses.create(**fields)


def wait_until(service: Any, response: Any, *statuses: str) -> Any:
    """The response, once its status is one of these."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        found = service.client.responses.retrieve(response.id)
        if found.status in statuses:
            return found
        assert time.monotonic() < deadline_s, found.status
        time.sleep(0.005)


def test_it_is_made_without_its_client(serve: Callable[..., Any]) -> None:
    service = serve()
    queued = ask(service)
    assert (queued.status, queued.output, queued.background) == ("queued", [], True)
    response = wait_until(service, queued, "completed")
    assert response.output_text == "Hello, world!"
    assert response.usage.output_tokens == 14
    assert service.client.responses.cancel(response.id) == response
    goes_on = service.client.responses.create(
        model="tiny", input="x", previous_response_id=queued.id
    )
    assert goes_on.status == "completed"
    assert not service.state.background.tasks
    assert service.state.in_flight.count == 0


def test_it_is_cancelled(serve: Callable[..., Any]) -> None:
    gate = asyncio.Event()
    service = serve(gate=gate, text=lambda request: "x" * 100)
    queued = ask(service)
    refused = {"model": "tiny", "input": "x", "previous_response_id": queued.id}
    with pytest.raises(openai.BadRequestError, match="queued"):
        service.client.responses.create(**refused)
    assert service.state.in_flight.count == 1
    cancelled = service.client.responses.cancel(queued.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", [])
    assert service.engine.wait_finished() == [FinishReason.ABORT]
    assert service.client.responses.retrieve(queued.id) == cancelled


def test_what_there_was_is_kept(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.02, text=lambda request: "x" * 150)
    running = wait_until(service, ask(service), "in_progress")
    cancelled = service.client.responses.cancel(running.id)
    assert cancelled.status == "cancelled"
    (item,) = cancelled.output
    assert item.status == "incomplete"
    assert set(item.content[0].text) == {"x"}


def test_a_deleted_one_is_ended(serve: Callable[..., Any]) -> None:
    service = serve(gate=asyncio.Event())
    queued = ask(service)
    service.client.responses.delete(queued.id)
    assert service.engine.wait_finished() == [FinishReason.ABORT]
    with pytest.raises(openai.NotFoundError):
        service.client.responses.retrieve(queued.id)


def test_it_fails(serve: Callable[..., Any]) -> None:
    service = serve(failure=FinishReason.ERROR)
    failed = wait_until(service, ask(service), "failed")
    assert failed.error.code == "server_error"
    assert failed.error.message == "the logits are not finite"
    assert failed.output[0].status == "incomplete"


def test_it_is_refused(serve: Callable[..., Any]) -> None:
    service = serve(refusal=QueueFullError("the queue is full", retry_after_s=1))
    failed = wait_until(service, ask(service), "failed")
    assert failed.error.message == "the queue is full"
    assert failed.error.code == "rate_limit_exceeded"


def test_an_accident_is_told(serve: Callable[..., Any]) -> None:
    service = serve(refusal=ZeroDivisionError())
    failed = wait_until(service, ask(service), "failed")
    assert failed.error.message.startswith("internal error")
    assert service.state.in_flight.count == 0


def test_a_synchronous_one_cannot_be_cancelled(serve: Callable[..., Any]) -> None:
    service = serve()
    response = ask(service, background=False)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        service.client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        service.client.responses.cancel("resp_x")
