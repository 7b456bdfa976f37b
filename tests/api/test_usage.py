"""Usage in a stream is that of the whole answer."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.request import SpeculationCounts
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPTS: dict[str, Any] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    TEXT: {"prompt": ["Hi", "Hello"]},
}
COUNTS = SpeculationCounts(num_steps=4, num_draft_tokens=9, num_accepted_per_pos=[3, 2])
CALL = "".join(
    (
        DEEPSEEK_TEXTS[Mark.CALLS_BEGIN],
        DEEPSEEK_TEXTS[Mark.CALL_BEGIN],
        "f",
        DEEPSEEK_TEXTS[Mark.NAME_END],
        "{}",
        DEEPSEEK_TEXTS[Mark.CALL_END],
        DEEPSEEK_TEXTS[Mark.CALLS_END],
    )
)


@pytest.fixture
def speak(serve: Callable[..., Any], tokenizer_of: Callable[..., Any]) -> Callable[..., Any]:
    """A service whose model says this, thinking and calls included."""

    def start(says: str, **script: Any) -> Any:
        tokenizer = tokenizer_of("<think>", "</think>", *DEEPSEEK_TEXTS.values())
        state = {"tokenizer": tokenizer, "max_model_len": 2000}
        return serve(text=lambda request: says, tokenizer=tokenizer, state=state, **script)

    return start


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("says", "fields"),
    [
        ("Hello, world!", {}),
        ("<think>Hm.</think>Yes.", {"n": 3}),
        ("Hello, world!", {"stop": "wor"}),
        ("Hello, world!", {"max_tokens": 4}),
        ("Hello, world!", {"max_tokens": 4, "n": 2, "min_tokens": 2}),
        ("<think>Hm.</think>" + CALL, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("", {}),
    ],
)
def test_usage_of_a_stream(
    speak: Callable[..., Any], says: str, fields: dict[str, Any], path: str, chunk: int
) -> None:
    service = speak(says, chunk=chunk, num_cached_tokens=1, speculation=COUNTS)
    if path == TEXT:
        fields = {name: value for name, value in fields.items() if name != "tools"}
    body = {"model": "tiny", **PROMPTS[path], **fields}
    whole = service.post(path, body).json()
    assert whole["usage"]["completion_tokens"] > 0
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    options = {"include_usage": True}
    for is_continuous in (False, True):
        options |= {"continuous_usage_stats": is_continuous}
        text = service.post(path, body | {"stream": True, "stream_options": options}).text
        *chunks, last = [
            json.loads(frame.removeprefix("data: ")) for frame in text.split("\n\n")[:-2]
        ]
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert last.get("metrics") == whole.get("metrics")
        usages = [chunk["usage"] for chunk in chunks]
        if is_continuous:
            assert usages[-1] == whole["usage"]
            counts = [usage["completion_tokens"] for usage in usages]
            assert counts == sorted(counts)
        else:
            assert not any(usages)
