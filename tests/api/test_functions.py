"""`functions` and `function_call`, OpenAI's older form of tools, over a real socket."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.loader.chat_template import ChatTemplate
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark

FUNCTIONS: Any = [{"name": "f", "description": "It fs"}, {"name": "g", "parameters": {}}]
USER: Any = {"role": "user", "content": "Hi"}
TEMPLATE = (
    "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments }}>"
    "{% endfor %}|{% endfor %}"
)
CALL = (
    DEEPSEEK_TEXTS[Mark.CALLS_BEGIN]
    + DEEPSEEK_TEXTS[Mark.CALL_BEGIN]
    + "f"
    + DEEPSEEK_TEXTS[Mark.NAME_END]
    + '{"a": 1}'
    + DEEPSEEK_TEXTS[Mark.CALL_END]
)


@pytest.fixture
def speak(serve: Callable[..., Any], tokenizer_of: Callable[..., Any]) -> Callable[..., Any]:
    """A service whose model says this."""

    def start(says: str, **script: Any) -> Any:
        tokenizer = tokenizer_of(*DEEPSEEK_TEXTS.values())
        state = {
            "tokenizer": tokenizer,
            "template": ChatTemplate(TEMPLATE, {}),
            "max_model_len": 2000,
        }
        return serve(text=lambda request: says, tokenizer=tokenizer, state=state, **script)

    return start


def ask(service: Any, **fields: Any) -> Any:
    fields = {"functions": FUNCTIONS, "messages": [USER]} | fields
    return service.client.chat.completions.create(model="tiny", **fields)


def prompt_of(service: Any) -> str:
    prompt_ids = service.engine.requests[-1].prompt_ids
    return str(service.state.tokenizer.decode(prompt_ids, skip_special_tokens=False))


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_call(speak: Callable[..., Any], chunk: int) -> None:
    service = speak("I look." + CALL + CALL, chunk=chunk)
    (choice,) = ask(service).choices
    assert choice.finish_reason == "function_call"
    message = choice.message
    assert message.content == "I look."
    assert message.tool_calls is None
    assert (message.function_call.name, message.function_call.arguments) == ("f", '{"a": 1}')
    content, name, arguments = "", "", ""
    for part in ask(service, stream=True):
        (choice,) = part.choices
        assert choice.delta.tool_calls is None
        content += choice.delta.content or ""
        if choice.delta.function_call is not None:
            name += choice.delta.function_call.name or ""
            arguments += choice.delta.function_call.arguments or ""
    assert (content, name, arguments) == ("I look.", "f", '{"a": 1}')
    assert choice.finish_reason == "function_call"


def test_an_answer_without_a_call(speak: Callable[..., Any]) -> None:
    service = speak("Hi")
    for function_call in ("auto", "none"):
        (choice,) = ask(service, function_call=function_call).choices
        assert (choice.finish_reason, choice.message.content) == ("stop", "Hi")
        assert ("It fs" in prompt_of(service)) == (function_call == "auto")
    ask(service, function_call={"name": "f"})
    assert service.engine.requests[-1].params.grammar is not None


def test_calls_and_their_results_reach_the_model(speak: Callable[..., Any]) -> None:
    service = speak("Hi")
    messages = [
        USER,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": '{"a": 1}'},
        },
        {"role": "function", "name": "f", "content": "2"},
    ]
    ask(service, messages=messages)
    assert prompt_of(service).endswith('user: Hi|assistant: None<f {"a": 1}>|tool: 2|')


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}] * 2}, "functions[1].name"),
        ({"functions": [{"name": "a b"}]}, "functions[0].name"),
        ({"functions": [{"name": f"f{i}"} for i in range(513)]}, "functions"),
        ({"functions": FUNCTIONS, "function_call": {"name": "h"}}, "function_call"),
        ({"functions": FUNCTIONS, "function_call": "required"}, "function_call"),
        (
            {"functions": FUNCTIONS, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "functions",
        ),
        (
            {"messages": [{**USER, "function_call": {"name": "f", "arguments": ""}}]},
            "messages[0].function_call",
        ),
    ],
)
def test_what_is_refused_is_named(
    speak: Callable[..., Any], fields: dict[str, Any], param: str
) -> None:
    service = speak("x")
    body = {"model": "tiny", "messages": [USER], **fields}
    response = service.post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
