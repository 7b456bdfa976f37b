"""Responses that are kept: asked for, continued, deleted, with OpenAI's own client."""

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from leadline.engine.request import EngineRequest, FinishReason
from leadline.loader.chat_template import ChatTemplate
from leadline.server.limits import Limits

KEY = {"authorization": "Bearer -"}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}|{% endfor %}"


@pytest.fixture
def remembering(serve: Callable[..., Any]) -> Any:
    """A service whose answers are A1, A2, ..."""
    service: Any = None

    def says(request: EngineRequest) -> str:
        return f"A{len(service.engine.requests)}"

    service = serve(text=says, state={"template": ChatTemplate(TEMPLATE, {})})
    return service


def ask(service: Any, **fields: Any) -> Any:
    return service.client.responses.create(**({"model": "tiny", "input": "Hi"} | fields))


def prompt_of(service: Any) -> str:
    request = service.engine.requests[-1]
    return str(service.state.tokenizer.decode(request.prompt_ids, skip_special_tokens=False))


def error_of(response: httpx.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json()["error"]


def test_a_conversation_goes_on(remembering: Any) -> None:
    client = remembering.client
    first = ask(remembering, input="Q1", instructions="Be brief.")
    assert prompt_of(remembering) == "system: Be brief.|user: Q1|"
    assert first.store
    with client.responses.stream(model="tiny", input="Q2", previous_response_id=first.id) as stream:
        second = stream.get_final_response()
    assert prompt_of(remembering) == "user: Q1|assistant: A1|user: Q2|"
    assert second.previous_response_id == first.id
    ask(remembering, previous_response_id=second.id, input=[{"role": "developer", "content": "D"}])
    assert prompt_of(remembering) == ("user: Q1|assistant: A1|user: Q2|assistant: A2|system: D|")
    ask(remembering, previous_response_id=first.id, input="Another way")
    assert prompt_of(remembering) == "user: Q1|assistant: A1|user: Another way|"
    counted = client.responses.input_tokens.count(previous_response_id=first.id, input="Q2")
    assert counted.input_tokens == len(remembering.engine.requests[1].prompt_ids)


def test_it_is_as_it_was(remembering: Any) -> None:
    response = ask(remembering, metadata={"a": "b"}, temperature=0.5)
    assert remembering.client.responses.retrieve(response.id) == response


def test_what_it_has_answered(remembering: Any) -> None:
    client = remembering.client
    first = ask(remembering, input="Q1")
    second = ask(remembering, input="Q2", previous_response_id=first.id)
    page = client.responses.input_items.list(second.id)
    assert [(item.role, item.content[0].text) for item in page.data] == [
        ("user", "Q2"),
        ("assistant", "A1"),
        ("user", "Q1"),
    ]
    assert [item.content[0].type for item in page.data] == [
        "input_text",
        "output_text",
        "input_text",
    ]
    ids = [item.id for item in page.data]
    assert len(set(ids)) == 3
    assert ids[1] == first.output[0].id
    assert not page.has_more
    paged = client.responses.input_items.list(second.id, limit=1, order="asc")
    assert paged.has_more
    assert [item.id for item in paged] == ids[::-1]


def test_every_item_survives(serve: Callable[..., Any]) -> None:
    service = serve()
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
        {"type": "reasoning", "id": "rs_9", "summary": []}
        | {"content": [{"type": "reasoning_text", "text": "R"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    response = ask(service, input=items)
    page = service.client.responses.input_items.list(response.id, order="asc")
    kept = [item.to_dict() for item in page.data]
    for item, given in zip(kept, items, strict=True):
        assert given.items() <= item.items()
        assert item["id"]
    ask(service, input=items)
    whole = prompt_of(service)
    ask(service, previous_response_id=response.id)
    assert prompt_of(service).startswith(whole.removesuffix("assistant:"))


def test_references(remembering: Any) -> None:
    first = ask(remembering, input="Q1")
    second = ask(remembering, input="Q2", previous_response_id=first.id)
    (question, *_) = remembering.client.responses.input_items.list(second.id).data
    ids = [first.output[0].id, question.id, second.output[0].id]
    items: Any = [{"type": "item_reference", "id": id_} for id_ in ids]
    third = ask(remembering, input=[*items, {"role": "user", "content": "Q3"}])
    assert prompt_of(remembering) == "assistant: A1|user: Q2|assistant: A2|user: Q3|"
    page = remembering.client.responses.input_items.list(third.id, order="asc")
    assert [item.id for item in page.data][:3] == ids
    for name in ("x", "msg_1", first.output[0].id + "0", f"msg_{'0' * 32}00"):
        with pytest.raises(openai.NotFoundError, match="Item with id"):
            ask(remembering, input=[{"type": "item_reference", "id": name}])
    other = remembering.client.with_options(api_key="other")
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        other.responses.create(model="tiny", input=items)


def test_deleted(remembering: Any) -> None:
    response = ask(remembering)
    deleted = remembering.http.delete(f"/v1/responses/{response.id}", headers=KEY)
    assert deleted.json() == {"id": response.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        remembering.client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        remembering.client.responses.delete(response.id)
    body = {"model": "tiny", "input": "x", "previous_response_id": response.id}
    error = error_of(remembering.post("/v1/responses", body, headers=KEY), 400)
    assert error["code"] == "previous_response_not_found"
    assert error["param"] == "previous_response_id"


def test_only_its_owner_has_it(remembering: Any) -> None:
    response = ask(remembering)
    other = remembering.client.with_options(api_key="other")
    for call in (
        lambda: other.responses.retrieve(response.id),
        lambda: other.responses.delete(response.id),
        lambda: other.responses.input_items.list(response.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="tiny", input="x", previous_response_id=response.id)


def test_not_kept(remembering: Any) -> None:
    response = ask(remembering, store=False)
    assert not response.store
    with pytest.raises(openai.NotFoundError):
        remembering.client.responses.retrieve(response.id)


def test_nothing_is_kept_where_there_is_no_room(serve: Callable[..., Any]) -> None:
    service = serve(state={"limits": Limits(stored_responses=0)})
    assert not ask(service).store
    with pytest.raises(openai.BadRequestError, match="stored_responses"):
        ask(service, store=True)


def test_the_oldest_goes(serve: Callable[..., Any]) -> None:
    service = serve(state={"limits": Limits(stored_responses=2)})
    first, second, third = (ask(service) for _ in range(3))
    with pytest.raises(openai.NotFoundError):
        service.client.responses.retrieve(first.id)
    for kept in (second, third):
        assert service.client.responses.retrieve(kept.id) == kept


def test_a_failed_one_is_not_continued(serve: Callable[..., Any]) -> None:
    service = serve(failure=FinishReason.ERROR)
    events: list[Any] = []
    with pytest.raises(openai.APIConnectionError):
        events.extend(ask(service, stream=True))
    response = events[0].response
    assert service.client.responses.retrieve(response.id).status == "failed"
    with pytest.raises(openai.BadRequestError, match="failed"):
        ask(service, previous_response_id=response.id)


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?stream=true", "stream"),
        ("?stream=yes", "stream"),
        ("?starting_after=3", "starting_after"),
        ("?include_obfuscation=true", "include_obfuscation"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=x", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=x", "after"),
    ],
)
def test_refusals(remembering: Any, path: str, param: str) -> None:
    response = ask(remembering)
    refused = remembering.http.get(f"/v1/responses/{response.id}{path}", headers=KEY)
    assert error_of(refused, 400)["param"] == param


def test_a_full_disk_costs_no_answer(
    remembering: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(remembering.state.responses, "_directory", tmp_path / "gone")
    response = ask(remembering)
    assert response.output_text == "A1"
    assert not response.store
