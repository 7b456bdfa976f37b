"""Fields of a request that are missing, out of range, of another type, or not for this server."""

from collections.abc import Callable
from typing import Any

import pytest

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROWS: list[tuple[str, dict[str, Any], str, str]] = []
"""Name, fields of a chat, `param` and `code` of the refusal."""
TEXT_ROWS: list[tuple[str, dict[str, Any], str, str]] = []
"""The same of a text completion."""
GOOD: list[tuple[str, dict[str, Any]]] = []
"""What is answered in a chat."""
MISSING, INVALID = "missing_required_parameter", "invalid_value"
UNSUPPORTED, LONG = "unsupported_parameter", "context_length_exceeded"


def refused(row: int, param: str, code: str, *cases: dict[str, Any]) -> None:
    ROWS.extend((f"{row}-{param}-{at}", case, param, code) for at, case in enumerate(cases))


def refused_text(row: int, param: str, code: str, *cases: dict[str, Any]) -> None:
    TEXT_ROWS.extend((f"{row}-{param}-{at}", case, param, code) for at, case in enumerate(cases))


def answered(row: int, *cases: dict[str, Any]) -> None:
    GOOD.extend((f"{row}-{at}", case) for at, case in enumerate(cases))


def says(*contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


BIG = (2**31, 2**63, 10**18, 10**30)

# 14: messages
refused(14, "messages", MISSING, {"messages": ...})
refused(14, "messages", INVALID, *each("messages", [], {}, "Hi", 1, None, True))
refused(14, "messages[0]", INVALID, *each("messages", [1], ["Hi"], [None], [[]]))
refused(14, "messages[0].role", MISSING, {"messages": [{"content": "Hi"}]})
refused(14, "messages[1].role", INVALID, {"messages": [USER, {"role": "wizard", "content": "x"}]})
refused(14, "messages[0].role", INVALID, {"messages": [{"role": None, "content": "x"}]})
refused(14, "messages[0].content", INVALID, says(1), says({}), says(True))
refused(14, "messages[0].content", MISSING, says(None), {"messages": [{"role": "user"}]})
# 15: conversations that are odd but can be meant
answered(
    15,
    says(""),
    says("Hi", "Hi"),
    {"messages": [{"role": "system", "content": "Be brief"}]},
    {"messages": [USER, {"role": "assistant", "content": "Hel"}]},
    {"messages": [USER, {"role": "tool", "content": "4", "tool_call_id": "none"}]},
    says("\0"),
    says([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    says("\u2028 [DONE] data: \n\n"),
)
refused(15, "messages[0].content[0].text", INVALID, says([{"type": "text"}]))
refused(15, "messages[0].tool_calls", INVALID, {"messages": [{**USER, "tool_calls": [CALL]}]})
# 16: model
refused(16, "model", MISSING, {"model": ...})
refused(16, "model", INVALID, *each("model", None, 1, [], {}, True))
# 17: n
refused(17, "n", INVALID, *each("n", 0, -1, 129, *BIG, True, "2", 1.5, [], {}))
# 18: how tokens are chosen
refused(18, "temperature", INVALID, *each("temperature", -0.1, 2.1, 1e300, "1", True, []))
refused(18, "top_p", INVALID, *each("top_p", 0, -0.5, 1.1, "1"))
refused(18, "min_p", INVALID, *each("min_p", -0.1, 1.1))
refused(18, "top_k", INVALID, *each("top_k", -2, *BIG, 1.5, "4"))
for penalty in ("frequency_penalty", "presence_penalty"):
    refused(18, penalty, INVALID, *each(penalty, -2.1, 2.1, "1"))
refused(18, "repetition_penalty", INVALID, *each("repetition_penalty", 0, -1, 2.1))
# 19: lengths
refused(19, "max_tokens", INVALID, *each("max_tokens", 0, -1, 2**63, 10**30, 1.5, "5", True))
refused(19, "max_completion_tokens", INVALID, *each("max_completion_tokens", 0, -1, 2**63))
answered(
    19,
    {"max_tokens": None},
    {"max_tokens": 10**6, "max_completion_tokens": 5},  # the newer name wins
)
# 20 and 21: longer than the model can read
refused(20, "messages", LONG, {"max_tokens": 200}, {"max_tokens": 2**63 - 1})
refused(21, "messages", LONG, says("x" * 300), says("x" * 4_000_000))
# 23: log-probabilities
refused(23, "top_logprobs", INVALID, {"logprobs": True, "top_logprobs": 21}, {"top_logprobs": 2})
refused(23, "top_logprobs", INVALID, *({"logprobs": True, "top_logprobs": x} for x in (-1, *BIG)))
refused(23, "logprobs", INVALID, *each("logprobs", 1, "true", []))
refused(23, "prompt_logprobs", INVALID, *each("prompt_logprobs", -1, 21, *BIG))
# 24: biases
refused(24, "logit_bias", INVALID, *each("logit_bias", {"abc": 1}, {"-1": 1}, {"300": 1}))
refused(24, "logit_bias", INVALID, *each("logit_bias", {str(2**31): 1}, {" 1": 1}, {"1.0": 1}))
refused(24, "logit_bias", INVALID, {"logit_bias": {str(i): 1 for i in range(10_000)}})
refused(24, "logit_bias", INVALID, {"logit_bias": []})
refused(24, "logit_bias", INVALID, *({"logit_bias": {"1": x}} for x in (100.5, -101, 1e300, "1")))
refused(24, "logit_bias", INVALID, {"logit_bias": "x"})
answered(24, {"logit_bias": {"1": 100, "2": -100}}, {"logit_bias": {}}, {"logit_bias": None})
# 25: stop strings
refused(25, "stop", INVALID, *each("stop", "", "x" * 2**20, 5, {}))
refused(25, "stop", INVALID, {"stop": [str(i) for i in range(17)]})
refused(25, "stop[0]", INVALID, *each("stop", [None], [""], [1]))
answered(25, {"stop": ["a", "b", "c", "d"]}, {"stop": []}, {"stop": None})
# 26: seeds
refused(26, "seed", INVALID, *each("seed", 2**63, -(2**63) - 1, 1.5, 10**30, "1", True))
answered(26, *each("seed", 2**63 - 1, -(2**63), 0, None))
# 27: streams
refused(27, "stream_options", INVALID, {"stream_options": {"include_usage": True}})
refused(27, "stream_options", INVALID, {"stream": True, "stream_options": "usage"})
refused(
    27,
    "stream_options.include_usage",
    INVALID,
    {"stream": True, "stream_options": {"include_usage": 1}},
)
refused(27, "stream", INVALID, *each("stream", "yes", 1, []))
# 28: least lengths
refused(
    28,
    "min_tokens",
    INVALID,
    *each("min_tokens", -1, 2**63, 1.5),
    {"min_tokens": 5, "max_tokens": 4},
)
refused(28, "min_tokens", INVALID, {"min_tokens": 10**6}, {"min_tokens": 200, "max_tokens": None})
# 30: what is no text
for kind in ("image_url", "input_audio", "file", "video_url", "refusal", "", None, 3):
    part = {"type": kind, str(kind): {"url": "http://127.0.0.1:1/x", "data": "", "format": "wav"}}
    refused(30, "messages[0].content[0].type", "unsupported_content", says([part]))
refused(30, "modalities", UNSUPPORTED, {"modalities": ["text", "audio"]})
refused(30, "audio", UNSUPPORTED, {"audio": {"voice": "alloy", "format": "wav"}})
refused(
    30, "web_search_options", UNSUPPORTED, {"web_search_options": {"search_context_size": "low"}}
)
# 31: what would reach into the server
refused(31, "chat_template", UNSUPPORTED, {"chat_template": "{{ 9**99999999 }}"})
refused(
    31, "chat_template_kwargs.tokenize", UNSUPPORTED, {"chat_template_kwargs": {"tokenize": True}}
)
refused(
    31, "chat_template_kwargs.messages", UNSUPPORTED, {"chat_template_kwargs": {"messages": []}}
)
for name in ("mm_processor_kwargs", "kv_transfer_params", "logits_processors", "documents"):
    refused(31, name, UNSUPPORTED, {name: {"a": 1}})
refused(31, "store", UNSUPPORTED, {"store": True}, {"store": 0})
refused(31, "best_of", UNSUPPORTED, {"best_of": 2}, {"best_of": 10**18})
refused(31, "use_beam_search", UNSUPPORTED, {"use_beam_search": True})
# 33: labels
for label in ("user", "user_id", "cache_salt", "safety_identifier", "prompt_cache_key"):
    refused(33, label, INVALID, {label: "x" * 513}, {label: "x" * 2**20}, {label: 5})
    answered(33, {label: "\0\n\x1b[31m\U0001f600"}, {label: "x" * 512})
refused(33, "metadata", INVALID, {"metadata": {str(i): "" for i in range(17)}}, {"metadata": []})
refused(33, "metadata", INVALID, {"metadata": {"x" * 65: ""}}, {"metadata": {"x": "x" * 513}})
# 37: tools
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
refused(37, "tools[1].function.name", INVALID, {"tools": [TOOL, TOOL]})
refused(
    37,
    "tools[0].function.name",
    INVALID,
    *({"tools": [{"type": "function", "function": {"name": x}}]} for x in ("a b", "", "x" * 65, 1)),
)
refused(
    37,
    "tools",
    INVALID,
    {
        "tools": [{**TOOL, "function": {"name": f"f{i}"}} for i in range(1000)],
        "tool_choice": "none",
    },
)
refused(37, "tools[0].type", INVALID, {"tools": [{**TOOL, "type": "code_interpreter"}]})
refused(
    37,
    "tool_choice",
    INVALID,
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
)
refused(
    37,
    "tool_choice",
    INVALID,
    {"tools": [], "tool_choice": "required"},
    {"tool_choice": "required"},
)
refused(
    37,
    "tool_choice",
    INVALID,
    *({"tools": [TOOL], "tool_choice": x} for x in ("any", {}, {"type": "function"})),
)
# 32: prompts of token ids
for bad in (
    [-1],
    [300],
    [2**31],
    [1, [2]],
    [[1], 2],
    [True],
    [],
    [[]],
    [1.5],
    [None],
    {},
    5,
    True,
    [["a"]],
):
    refused_text(32, "prompt", INVALID, {"prompt": bad})
refused_text(32, "prompt", MISSING, {"prompt": ...})
refused_text(20, "prompt", LONG, {"prompt": [5] * 200}, {"prompt": "xyz", "max_tokens": 197})
refused_text(23, "logprobs", INVALID, *each("logprobs", -1, 21, True, "1"))
refused_text(31, "suffix", UNSUPPORTED, {"suffix": "x"})
refused_text(31, "best_of", UNSUPPORTED, {"best_of": 2})


def body_of(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**base, **fields}.items() if value is not ...}


def params(rows: Any) -> Any:
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


@pytest.mark.parametrize(("fields", "param", "code"), params(ROWS))
def test_a_chat_that_is_refused(
    service: Any, error_of: Callable[..., Any], fields: Any, param: str, code: str
) -> None:
    body = body_of({"model": "tiny", "messages": [USER]}, fields)
    error = error_of(service.post("/v1/chat/completions", body), 400)
    assert (error["code"], error["param"]) == (code, param), error["message"]
    assert len(service.engine.requests) == 1, "it has reached the engine"


@pytest.mark.parametrize(("fields", "param", "code"), params(TEXT_ROWS))
def test_a_text_that_is_refused(
    service: Any, error_of: Callable[..., Any], fields: Any, param: str, code: str
) -> None:
    body = body_of({"model": "tiny", "prompt": "x"}, fields)
    error = error_of(service.post("/v1/completions", body), 400)
    assert (error["code"], error["param"].partition("[")[0]) == (code, param), error["message"]
    assert len(service.engine.requests) == 1, "it has reached the engine"


@pytest.mark.parametrize("fields", params(GOOD))
def test_a_chat_that_is_answered(service: Any, fields: Any) -> None:
    body = body_of({"model": "tiny", "messages": [USER]}, fields)
    response = service.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_prompt_that_fills_the_context(service: Any, error_of: Any, room: int) -> None:
    """Row 22."""
    prompt = [5] * (service.state.max_model_len - room)
    response = service.complete(prompt)
    if room == 0:
        assert error_of(response, 400)["code"] == LONG
        return
    assert response.json()["usage"]["completion_tokens"] == room
    assert response.json()["choices"][0]["finish_reason"] == "length"
