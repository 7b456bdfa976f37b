"""Requests of every kind while the engine is killed: what they say is what they say without it."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
Body = dict[str, Any]
Seen = tuple[int, Any]
LONG = {"max_tokens": 56, "ignore_eos": True, "temperature": 1.0}
USER: list[Any] = [{"role": "user", "content": "What does `itertools.chain` do?"}]
LIST = {
    "type": "object",
    "properties": {
        "n": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 99},
            "minItems": 12,
            "maxItems": 12,
        }
    },
    "required": ["n"],
    "additionalProperties": False,
}
TOOL = {"name": "collect", "parameters": LIST}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": LIST}}
CHAT: Body = {"messages": USER, "seed": 1, "max_tokens": 56, "temperature": 1.0}
CALL: Body = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
STREAM: Body = {"stream": True}
LOGPROBS: Body = {"logprobs": True, "top_logprobs": 2, "ignore_eos": True}
RESPONSE: Body = {"input": "Tell me.", "max_output_tokens": 56, "ignore_eos": True, "seed": 7}
MESSAGE: Body = {"messages": USER, "max_tokens": 56, "ignore_eos": True, "seed": 3}
REQUESTS: dict[str, tuple[str, Body]] = {
    "text": ("/v1/completions", {"prompt": "Once", "seed": 4, **LONG}),
    "text stream": ("/v1/completions", {"prompt": "Twice", "seed": 5, **LONG, **STREAM}),
    "text logprobs": (
        "/v1/completions",
        {"prompt": "One more", "seed": 6, "logprobs": 2, "prompt_logprobs": 1, "echo": True} | LONG,
    ),
    "chat": ("/v1/chat/completions", CHAT | {"ignore_eos": True}),
    "chat stream": ("/v1/chat/completions", CHAT | {"ignore_eos": True, "seed": 2} | STREAM),
    "schema": ("/v1/chat/completions", CHAT | {"response_format": SCHEMA}),
    "schema stream": ("/v1/chat/completions", CHAT | {"response_format": SCHEMA} | STREAM),
    "call": ("/v1/chat/completions", CHAT | CALL),
    "call stream": ("/v1/chat/completions", CHAT | CALL | STREAM),
    "choices": ("/v1/chat/completions", CHAT | {"n": 2, "seed": 8} | LOGPROBS),
    "choices stream": ("/v1/chat/completions", CHAT | {"n": 2, "seed": 9} | LOGPROBS | STREAM),
    "prompt logprobs": ("/v1/chat/completions", CHAT | LOGPROBS | {"prompt_logprobs": 2}),
    "response": ("/v1/responses", RESPONSE),
    "response stream": ("/v1/responses", RESPONSE | STREAM),
    "message": ("/v1/messages", MESSAGE),
    "message stream": ("/v1/messages", MESSAGE | STREAM),
    "tokens": (
        "/inference/v1/generate",
        {"token_ids": list(range(200, 240)), "sampling_params": LONG | {"seed": 3}},
    ),
}
NUM_CHOICES = len(REQUESTS) + 2
VARIES = {"id", "created", "created_at", "completed_at", "call_id", "request_id", "item_id"}
VARIES |= {"usage", "metrics", "obfuscation"}
TOKENS, STEPS = "generation_tokens_total", "iteration_tokens_total_count"
LAST_EVENTS = ("response.completed", "response.incomplete", "message_stop")


def stable(value: Any) -> Any:
    """What of an answer must not change: all but ids, times and what the cache did."""
    if isinstance(value, dict):
        return {name: stable(part) for name, part in value.items() if name not in VARIES}
    return [stable(part) for part in value] if isinstance(value, list) else value


class Event:
    """One server-sent event."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.split("\n") if not line.startswith(":")]
        (data,) = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        self.is_done = data == "[DONE]"
        self.data: Body = {} if self.is_done else json.loads(data)


def events_of(text: str) -> list[Event]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [Event(block) for block in blocks]


def told(text: str) -> Any:
    """A stream as its client puts it together; exactly one end is asserted."""
    pieces: Counter[str] = Counter()
    parts: dict[str, list[Any]] = {}
    events = events_of(text)
    for event in events:
        for choice in event.data.get("choices", []):
            key = str(choice["index"])
            parts.setdefault(key, []).append(_text_of(choice))
            parts.setdefault(key + " logprobs", []).extend(
                ((choice.get("logprobs") or {}).get("content")) or []
            )
            pieces[key] += choice["finish_reason"] is not None
            if choice["finish_reason"] is not None:
                parts[key + " ends"] = [choice["finish_reason"]]
        kind = event.data.get("type", "")
        if kind in LAST_EVENTS:
            pieces[kind] += 1
        delta = event.data.get("delta")
        if kind.endswith(".delta") and isinstance(delta, str):
            parts.setdefault(kind, []).append(delta)
        elif kind == "content_block_delta":
            parts.setdefault(kind, []).append(delta["text"])
        assert "error" not in event.data, event.data
    assert pieces, text
    assert set(pieces.values()) == {1}, pieces
    is_chat = "choices" in events[0].data
    assert sum(event.is_done for event in events) == is_chat
    if not is_chat:
        assert events[-1].data["type"] in LAST_EVENTS
    return {
        name: "".join(values) if all(isinstance(v, str) for v in values) else values
        for name, values in parts.items()
    }


def _text_of(choice: Body) -> str:
    if "delta" not in choice:
        return str(choice["text"])
    delta = choice["delta"]
    calls = delta.get("tool_calls") or []
    arguments = "".join((call["function"].get("arguments")) or "" for call in calls)
    names = "".join((call["function"].get("name")) or "" for call in calls)
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "") + names + arguments


class Crowd:
    """Requests, each sent by a thread of its own."""

    def __init__(self, url: str, requests: dict[str, tuple[str, Body]]) -> None:
        self.seen: dict[str, Seen] = {}
        self._url = url
        self._threads = [
            threading.Thread(target=self._ask, args=(name, *requests[name]), daemon=True)
            for name in requests
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_open(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    def wait(self) -> dict[str, Seen]:
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        return self.seen

    def _ask(self, name: str, path: str, body: Body) -> None:
        text = ""
        with httpx.Client(base_url=self._url, timeout=WAIT_S) as http:
            try:
                with http.stream("POST", path, json={"model": "demo", **body}) as answer:
                    for piece in answer.iter_text():
                        text += piece
                status = answer.status_code
            except httpx.RemoteProtocolError:  # cut
                status = 0
        self.seen[name] = status, text


def gauge(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=WAIT_S).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"leadline:{name}{{")]
    return float(line.rpartition(" ")[2])


def answers_of(seen: dict[str, Seen]) -> dict[str, Any]:
    answers = {}
    for name, (status, text) in seen.items():
        assert status == 200, (name, text)
        is_stream = name.endswith("stream")
        answers[name] = told(text) if is_stream else stable(json.loads(text))
    return answers


@pytest.fixture(scope="module")
def process(
    start_service: Any, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server whose engine may be killed; it is started again each time."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    flags = ("--max-engine-restarts", "100", "--seed", "5")
    with start_service(log, model, *flags) as process:
        yield process


@pytest.fixture(scope="module")
def undisturbed(process: Any) -> dict[str, Any]:
    """What the requests say while the engine lives."""
    return answers_of(Crowd(process.url, REQUESTS).wait())


def kill_engine(process: Any, eventually: Callable[..., None]) -> None:
    """Kill it, and wait for the next one."""
    killed = process.engine_pid()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: process.is_gone(killed), "gone")
    eventually(lambda: is_new(process, killed), "started again")


def health(process: Any) -> str:
    return str(httpx.get(f"{process.url}/health", timeout=WAIT_S).json()["status"])


def is_new(process: Any, killed: int) -> bool:
    """Whether there is another engine, which can serve."""
    try:
        return process.engine_pid() != killed and health(process) == "ok"
    except ValueError:  # there is none
        return False


def wait_for(
    process: Any, crowd: "Crowd", eventually: Any, name: str, least: float, *, below: float = 0
) -> None:
    """Until a counter has got so far, or all requests have ended.

    Args:
        below: what the counter is below in an engine that has not been told of yet; 0 for none.
    """

    def has_come() -> bool:
        value = gauge(process.url, name)
        return (least <= value and (not below or value < below)) or not crowd.num_open

    eventually(has_come, name)


def test_the_schemas_are_kept_to(undisturbed: dict[str, Any]) -> None:
    """Else the comparisons below would prove little."""
    (choice,) = undisturbed["schema"]["choices"]
    assert choice["message"]["content"].startswith('{"n":')
    (choice,) = undisturbed["call"]["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "collect"
    assert call["function"]["arguments"].startswith('{"n":')
    assert len(undisturbed["choices"]["choices"]) == 2


def test_all_kinds_of_requests_outlive_the_engine(
    process: Any, undisturbed: dict[str, Any], eventually: Any
) -> None:
    num_tokens = gauge(process.url, TOKENS)
    crowd = Crowd(process.url, REQUESTS)
    wait_for(process, crowd, eventually, TOKENS, num_tokens + 2 * NUM_CHOICES)
    assert crowd.num_open == len(REQUESTS), "the engine is killed too late to tell"
    kill_engine(process, eventually)
    answers = answers_of(crowd.wait())
    assert answers.keys() == undisturbed.keys()
    for name, answer in answers.items():
        assert answer == undisturbed[name], name


def test_a_request_that_is_there_at_each_death_is_given_up(process: Any, eventually: Any) -> None:
    """A prompt that takes long: the engine dies before its first token, and once more."""
    long = {"prompt": [300 + at % 50 for at in range(1900)], "max_tokens": 4}
    num_steps, below = gauge(process.url, STEPS), 0.0
    crowd = Crowd(process.url, {"long": ("/v1/completions", long)})
    for _ in range(2):
        wait_for(process, crowd, eventually, STEPS, num_steps + 1, below=below)
        assert crowd.num_open
        below = gauge(process.url, STEPS)
        kill_engine(process, eventually)
        num_steps = 0
    status, text = crowd.wait()["long"]
    assert status == 500
    assert "died each time" in json.loads(text)["error"]["message"]
    after = Crowd(process.url, {"text": REQUESTS["text"]}).wait()
    assert after["text"][0] == 200
