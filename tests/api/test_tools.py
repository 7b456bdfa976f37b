"""Tool calls over a real socket, with OpenAI's own client."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.request import FinishReason, GrammarKind
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, KIMI_TEXTS, Form, Mark

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}{{ m.reasoning_content or '' }}"
    "{% for c in m.tool_calls or [] %}<{{ c.id }} {{ c.type }} {{ c.function.name }} "
    "{{ c.function.arguments }}>{% endfor %}{% if m.tool_call_id %}={{ m.tool_call_id }}{% endif %}"
    "|{% endfor %}{% if thinking %}<think>\n{% endif %}"
)
V3_TEMPLATE = TEMPLATE + "{# ```json #}"
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "The time",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "f"}},
]
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
SHORT = {
    "[[": Mark.CALLS_BEGIN,
    "]]": Mark.CALLS_END,
    "((": Mark.CALL_BEGIN,
    "))": Mark.CALL_END,
    "||": Mark.NAME_END,
}
ANSWERS = {
    Form.DEEPSEEK_V3: '[[((function||get_time\n```json\n{"city": "Rome"}\n```))\n'
    "((function||f\n```json\n{}\n```))]]",
    Form.DEEPSEEK_V3_1: '[[((get_time||{"city": "Rome"}))((f||{}))]]',
    Form.KIMI_K2: '[[((functions.get_time:0||{"city": "Rome"}))((functions.f:1||{}))]]',
}


def in_full(form: Form, written: str) -> str:
    texts = KIMI_TEXTS if form is Form.KIMI_K2 else DEEPSEEK_TEXTS
    for short, mark in SHORT.items():
        written = written.replace(short, texts[mark])
    return written


@pytest.fixture
def speak(serve: Callable[..., Any], tokenizer_of: Callable[..., Tokenizer]) -> Callable[..., Any]:
    """A service whose model says this; marks are written short."""

    def start(form: Form, says: str, template: str | None = None, **script: Any) -> Any:
        texts = KIMI_TEXTS if form is Form.KIMI_K2 else DEEPSEEK_TEXTS
        tokenizer = tokenizer_of("<think>", "</think>", *texts.values())
        default = V3_TEMPLATE if form is Form.DEEPSEEK_V3 else TEMPLATE
        state = {"tokenizer": tokenizer, "template": ChatTemplate(template or default, {})}
        text = in_full(form, says)
        settings = {"max_model_len": 5000} | script.pop("state", {})
        return serve(
            text=lambda request: text, tokenizer=tokenizer, state=state | settings, **script
        )

    return start


def prompt_of(service: Any) -> str:
    (request,) = service.engine.requests
    return str(service.state.tokenizer.decode(request.prompt_ids, skip_special_tokens=False))


def ask(service: Any, **fields: Any) -> Any:
    fields = {"tools": TOOLS, "messages": MESSAGES} | fields
    return service.client.chat.completions.create(model="tiny", **fields)


def streamed(service: Any, **fields: Any) -> Any:
    """What OpenAI's client makes of a stream."""
    fields = {"tools": TOOLS, "messages": MESSAGES} | fields
    with service.client.chat.completions.stream(model="tiny", **fields) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("form", Form)
def test_calls(speak: Callable[..., Any], form: Form, chunk: int) -> None:
    service = speak(form, "I look." + ANSWERS[form], chunk=chunk)
    for answer in (ask(service), streamed(service)):
        (choice,) = answer.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "I look."
        calls = choice.message.tool_calls
        assert [call.function.name for call in calls] == ["get_time", "f"]
        assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Rome"}, {}]
        ids = [call.id for call in calls]
        if form is Form.KIMI_K2:
            assert ids == ["functions.get_time:0", "functions.f:1"]
        else:
            assert len(set(ids)) == 2
            assert all(len(id_) == 29 and id_.startswith("call_") for id_ in ids)


def test_calls_alone_leave_no_content(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, ANSWERS[Form.DEEPSEEK_V3_1])
    body = service.chat(tools=TOOLS).json()["choices"][0]["message"]
    assert body["content"] is None
    assert "reasoning" not in body
    assert "tool_calls" not in speak(Form.DEEPSEEK_V3_1, "Hi").chat(tools=TOOLS).text


def test_the_chunks_of_calls(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, '[[((f||{"a":1}))((f||{}))]]', chunk=4)
    frames = service.chat(tools=TOOLS, stream=True).text.split("\n\n")
    deltas = [json.loads(f[6:])["choices"][0]["delta"] for f in frames if "choices" in f]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert deltas[-1] == {}
    calls = [call for delta in deltas[1:-1] for call in delta["tool_calls"]]
    begins = [call for call in calls if "id" in call]
    assert [call["index"] for call in begins] == [0, 1]
    for call in begins:
        assert call["type"] == "function"
        assert call["function"] == {"name": "f", "arguments": ""}
    for call in calls:
        if "id" not in call:
            assert call.keys() == {"index", "function"}
            assert call["function"].keys() == {"arguments"}


@pytest.mark.parametrize(
    "template", [TEMPLATE, "{{ messages[0].content }}{{ messages[-1].content }}"]
)
def test_the_model_is_told_of_the_tools(speak: Callable[..., Any], template: str) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "x", template)
    tools = [*TOOLS, {"type": "function", "function": {"name": "g", "strict": True}}]
    ask(service, tools=tools)
    prompt = prompt_of(service)
    for word in ("get_time", "The time", '"city"', "g"):
        assert word in prompt
    assert "strict" not in prompt or "strictly" in prompt
    assert ("IMPORTANT" in prompt) == (template != TEMPLATE)


def test_tools_that_may_not_be_called_are_not_told_of(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "x[[((f||{}))]]")
    (choice,) = ask(service, tool_choice="none").choices
    assert "get_time" not in prompt_of(service)
    assert choice.message.content == in_full(Form.DEEPSEEK_V3_1, "x[[((f||{}))]]")
    assert choice.finish_reason == "stop"


def test_calls_and_results_go_back_to_the_model(speak: Callable[..., Any]) -> None:
    service = speak(Form.KIMI_K2, "x")
    arguments = '{"city":  "Rome"}'
    call = {"id": "functions.f:0", "type": "function"}
    messages = [
        *MESSAGES,
        {
            "role": "assistant",
            "content": None,
            "reasoning": "Hm.",
            "tool_calls": [
                call | {"function": {"name": "f", "arguments": arguments}},
                call | {"function": {"name": "f", "arguments": {"a": "\u00fc"}}},
            ],
        },
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "5 o'clock"},
        {"role": "assistant", "content": "a", "reasoning_content": "b", "tool_calls": []},
    ]
    ask(service, messages=messages, tools=[])
    assert prompt_of(service) == (
        f"user: Hi|assistant: Hm.<functions.f:0 function f {arguments}>"
        '<functions.f:0 function f {"a": "\u00fc"}>|'
        "tool: 5 o'clock=functions.f:0|assistant: ab|"
    )


def test_one_call_where_only_one_is_wanted(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, ANSWERS[Form.DEEPSEEK_V3_1] + "more")
    for answer in (
        ask(service, parallel_tool_calls=False),
        streamed(service, parallel_tool_calls=False),
    ):
        (choice,) = answer.choices
        assert [call.function.name for call in choice.message.tool_calls] == ["get_time"]
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
    assert service.engine.wait_finished(4).count(FinishReason.STOP) == 2


def test_several_choices_have_ids_of_their_own(speak: Callable[..., Any]) -> None:
    answer = ask(speak(Form.DEEPSEEK_V3_1, ANSWERS[Form.DEEPSEEK_V3_1]), n=3)
    ids = {call.id for choice in answer.choices for call in choice.message.tool_calls}
    assert len(ids) == 6


def test_stop_strings_are_looked_for_in_the_content_alone(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, '<think>STOP</think>a[[((f||{"STOP": 1}))]] bSTOPc')
    for answer in (ask(service, stop="STOP"), streamed(service, stop="STOP")):
        (choice,) = answer.choices
        assert choice.message.content == "a b"
        assert choice.message.reasoning == "STOP"
        assert choice.message.tool_calls[0].function.arguments == '{"STOP": 1}'
        assert choice.finish_reason == "tool_calls"
    included = {"include_stop_str_in_output": True}
    (choice,) = ask(service, stop="STOP", extra_body=included).choices
    assert choice.stop_reason == "STOP"
    assert choice.message.content == "a bSTOP"


def test_log_probabilities_have_all_tokens(speak: Callable[..., Any]) -> None:
    says = "<think>b</think>a" + ANSWERS[Form.DEEPSEEK_V3]
    service = speak(Form.DEEPSEEK_V3, says, chunk=3)
    tokens = [
        [entry.token for entry in answer.choices[0].logprobs.content]
        for answer in (ask(service, logprobs=True), streamed(service, logprobs=True))
    ]
    assert tokens[0] == tokens[1]
    assert "".join(tokens[0]) == in_full(Form.DEEPSEEK_V3, says) + "<eos>"


def test_an_answer_that_is_cut_off_within_a_call(speak: Callable[..., Any]) -> None:
    (choice,) = ask(speak(Form.DEEPSEEK_V3_1, "[[((f||{"), max_tokens=5).choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.arguments == "{"


NAMED = {"type": "function", "function": {"name": "f"}}
STRICT = [{"type": "function", "function": {"name": "f", "strict": True}}]


def allowed(mode: str, *tools: Any) -> Any:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": NAMED},
        {"tool_choice": allowed("auto", NAMED)},
        {"tool_choice": allowed("required", NAMED)},
        {"tools": STRICT},
    ],
)
def test_calls_that_need_a_grammar(speak: Callable[..., Any], fields: Any) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "[[((f||{}))]]")
    (choice,) = ask(service, **fields).choices
    assert choice.finish_reason == "tool_calls"
    (request,) = service.engine.requests
    assert request.params.grammar.kind is GrammarKind.LARK
    assert request.params.thinking is not None  # the grammar holds after it


def test_the_model_is_told_of_tools_that_it_may_not_call(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "x")
    ask(service, tool_choice=allowed("auto", NAMED))
    assert "get_time" in prompt_of(service)


def test_calls_that_may_come_need_none(speak: Callable[..., Any]) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "x")
    ask(service, tool_choice="auto")
    assert service.engine.requests[0].params.grammar is None


def test_a_model_without_marks_for_calls(service: Any) -> None:
    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "required"}):
        response = service.chat(tools=TOOLS, **choice)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["param"], error["code"]) == ("tools", "unsupported_parameter")
    assert service.chat(tools=TOOLS, tool_choice="none").status_code == 200


def named(name: Any) -> Any:
    return [{"type": "function", "function": {"name": name}}]


JSON_FORMAT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": named("a b")}, "tools[0].function.name"),
        ({"tools": named("a" * 65)}, "tools[0].function.name"),
        ({"tools": named("f") + named("f")}, "tools[1].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("g")[0]}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice.allowed_tools",
        ),
        ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "tool_choice": allowed("any", NAMED)}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "f")}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", *named("g"))}, "tool_choice"),
        ({"tool_choice": allowed("auto", NAMED)}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": TOOLS, "structured_outputs": {"grammar": "x"}}, "structured_outputs"),
        ({"tools": TOOLS, "guided_grammar": "x"}, "guided_grammar"),
        ({"tools": TOOLS, "ebnf": "x"}, "ebnf"),
        ({"tools": TOOLS, "json_schema": "{"}, "structured_outputs"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": 3}]},
            "messages[0].tool_calls",
        ),
    ],
)
def test_refusals(speak: Callable[..., Any], fields: Any, param: str) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "x")
    response = service.post(
        "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES} | fields
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not service.engine.requests


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"response_format": JSON_FORMAT, "tool_choice": "none"}, GrammarKind.JSON_SCHEMA),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": JSON_FORMAT}, GrammarKind.LARK),
        ({"guided_regex": "a/b"}, GrammarKind.LARK),
        ({"guided_choice": ["a", "b"], "tool_choice": "auto"}, GrammarKind.LARK),
        ({"guided_grammar": 'start: "a"', "tool_choice": "required"}, GrammarKind.LARK),
    ],
)
def test_a_format_goes_with_tools(speak: Callable[..., Any], fields: Any, kind: Any) -> None:
    service = speak(Form.DEEPSEEK_V3_1, "{}")
    assert service.chat(tools=TOOLS, **fields).status_code == 200
    grammar = service.engine.requests[0].params.grammar
    assert (grammar and grammar.kind) == kind
