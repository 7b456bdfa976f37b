"""Thinking: its limit, and how much there was."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.request import ThinkingLimit

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def thinking_service(serve: Callable[..., Any], tokenizer: Any, text: str = "x") -> Any:
    return serve(text=lambda request: text, tokenizer=tokenizer, state={"tokenizer": tokenizer})


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"thinking_token_budget": 7}, 7),
        ({"thinking_token_budget": 0}, 0),
        ({"thinking_token_budget": 50, "max_tokens": 40}, 30),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "minimal", "max_tokens": 100}, 75),
        ({"reasoning_effort": "xhigh"}, None),
        ({"reasoning_effort": "max"}, None),
        ({"reasoning_effort": "ultra"}, None),
        ({"thinking": {"type": "enabled"}}, None),
        ({"thinking": {"type": "enabled"}, "thinking_token_budget": 9}, 9),
        ({"thinking": {"type": "disabled"}}, 0),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, 0),
    ],
)
def test_a_budget_of_thinking(
    serve: Callable[..., Any], thinking_tokenizer: Any, fields: Any, budget: int | None
) -> None:
    service = thinking_service(serve, thinking_tokenizer)
    assert service.chat(**fields).status_code == 200
    (begin_id,), (end_id,) = map(thinking_tokenizer.encode, ("<think>", "</think>"))
    (request,) = service.engine.requests
    limit = ThinkingLimit(begin_id=begin_id, end_id=end_id, budget=budget)
    assert request.params.thinking == limit
    switch = fields.get("thinking", {"type": ""})["type"]
    has_effort = fields.get("reasoning_effort", "none") != "none"
    thinks = switch == "enabled" or (has_effort and switch != "disabled")
    assert (begin_id in request.prompt_ids) == thinks


def test_a_model_that_does_not_mark_its_thinking(service: Any) -> None:
    every: Any = (
        {"thinking_token_budget": 5},
        {"reasoning_effort": "low"},
        {"thinking": {"type": "enabled"}},
    )
    for fields in every:
        (param,) = fields
        response = service.chat(**fields)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, "unsupported_parameter")
        assert "</think>" in error["message"]
    assert service.chat(reasoning_effort="none").status_code == 200
    assert service.chat(thinking={"type": "disabled"}).status_code == 200
    assert [request.params.thinking for request in service.engine.requests] == [None, None]


def test_tokens_of_thinking_are_counted(
    serve: Callable[..., Any], thinking_tokenizer: Any, service: Any
) -> None:
    thinking = thinking_service(serve, thinking_tokenizer, "abc</think>de")
    usage = thinking.client.chat.completions.create(
        model="tiny", messages=MESSAGES, reasoning_effort="high", n=2
    ).usage
    assert usage.completion_tokens_details.reasoning_tokens == 6
    options = {"include_usage": True}
    *_, last, _, _ = thinking.chat(stream=True, stream_options=options).text.split("\n\n")
    usage = json.loads(last.removeprefix("data: "))["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0
    usage = service.chat().json()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0
