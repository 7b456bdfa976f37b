"""Models that write tool calls badly: whatever comes is told as text or as arguments, and ends."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, KIMI_TEXTS, Form, Mark

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f"}}]
TEMPLATES = {
    Form.DEEPSEEK_V3: "{{ messages[0].content }}{{ tools|tojson if tools }}{# ```json #}",
    Form.DEEPSEEK_V3_1: "{{ messages[0].content }}{{ tools|tojson if tools }}",
    Form.KIMI_K2: "{{ messages[0].content }}{{ tools|tojson if tools }}",
}
SHORT = {
    "[[": Mark.CALLS_BEGIN,
    "]]": Mark.CALLS_END,
    "((": Mark.CALL_BEGIN,
    "))": Mark.CALL_END,
    "||": Mark.NAME_END,
}
LARGE = 2**16
BAD = {
    "nothing": "[[]]",
    "no end": '[[((f||{"a": 1}',
    "no name": "[[((||{}))]]",
    "no header's end": "[[((f",
    "an end alone": "]]))||",
    "begun twice": "[[[[((((f||f||{}))))]]]]",
    "a call without a list": "((f||{}))",
    "no JSON": "[[((f||not json {{{ ))]]",
    "another tool": "[[((rm -rf||{}))]]",
    "text within": "[[ so ((f||{})) and ((f||{})) well ]] done",
    "a list behind a list": "[[((f||{}))]] and [[((f||{}))]]",
    "control characters": '[[((f||{"a": "\0\x1b\u2028"}))]]',
    "a code fence without end": "[[((function||f\n```json\n{}",
    "marks without end": "[[((" * 2000,
    "calls without end": "[[" + "((f||{}))" * 500,
}
LONG = {
    "long arguments": '[[((f||{"a": "' + "x" * LARGE,
    "a long name": "[[((" + "f" * LARGE,
    "long blanks": "[[((f||" + " " * LARGE + "))]]",
    "deep arguments": "[[((f||" + "{" * LARGE,
    "a long fence": "[[((function||f\n" + "`" * LARGE,
}


@pytest.fixture
def speak(serve: Callable[..., Any], tokenizer_of: Callable[..., Tokenizer]) -> Callable[..., Any]:
    """A service whose model says this; marks are written short."""

    def start(form: Form, says: str, chunk: int) -> Any:
        texts = KIMI_TEXTS if form is Form.KIMI_K2 else DEEPSEEK_TEXTS
        for short, mark in SHORT.items():
            says = says.replace(short, texts[mark])
        tokenizer = tokenizer_of(*texts.values())
        state = {
            "tokenizer": tokenizer,
            "template": ChatTemplate(TEMPLATES[form], {}),
            "max_model_len": 2**20,
        }
        return serve(text=lambda request: says, tokenizer=tokenizer, chunk=chunk, state=state)

    return start


def ask(service: Any, **fields: Any) -> Any:
    body = {"model": "tiny", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 2**19} | fields
    response = service.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text[:500]
    return response


def events_of(response: Any) -> Iterator[dict[str, Any]]:
    *events, done, end = response.content.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    for event in events:
        chunk: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
        assert "error" not in chunk
        yield chunk


def told(response: Any) -> tuple[str, list[tuple[str, str]], str]:
    """Content, calls and finish reason of a stream."""
    content, reason = [], ""
    calls: list[list[list[str]]] = []
    for chunk in events_of(response):
        for choice in chunk["choices"]:
            content.append(choice["delta"].get("content") or "")
            reason = choice["finish_reason"] or reason
            for call in choice["delta"].get("tool_calls") or []:
                assert call["index"] in (len(calls), len(calls) - 1), "indices are dense"
                if call["index"] == len(calls):
                    calls.append([[call["function"]["name"]], []])
                calls[-1][1].append(call["function"].get("arguments") or "")
    return "".join(content), [("".join(n), "".join(a)) for n, a in calls], reason


def whole(response: Any) -> tuple[str, list[tuple[str, str]], str]:
    """The same of an answer that is not streamed."""
    (choice,) = response.json()["choices"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls") or []]
    pairs = [(call["name"], call["arguments"]) for call in calls]
    return message["content"] or "", pairs, choice["finish_reason"]


@pytest.mark.parametrize("form", list(TEMPLATES), ids=lambda form: form.name)
@pytest.mark.parametrize("name", BAD)
def test_bad_markup(speak: Callable[..., Any], form: Form, name: str) -> None:
    """Row 38: the same text and calls, streamed in any pieces and whole."""
    services = [speak(form, BAD[name], chunk) for chunk in (1, 7)]
    streamed = [told(ask(service, stream=True)) for service in services]
    assert streamed[0] == streamed[1]
    assert whole(ask(services[1])) == streamed[0]
    content, calls, reason = streamed[0]
    assert reason == ("tool_calls" if calls else "stop")
    assert content or calls or name == "nothing"


@pytest.mark.parametrize("form", [Form.DEEPSEEK_V3, Form.KIMI_K2], ids=lambda form: form.name)
@pytest.mark.parametrize("name", LONG)
def test_long_bad_markup(speak: Callable[..., Any], form: Form, name: str) -> None:
    """Row 38: tens of thousands of characters that come to no end."""
    service = speak(form, LONG[name], 64)
    response = ask(service, stream=True)
    content, calls, _ = told(response)
    size = len(content) + sum(len(part) for call in calls for part in call)
    assert size >= LARGE or name == "long blanks"
    assert whole(ask(service))[1] == calls
