"""Streams whose text tries to be something else, and clients that come and go in a storm."""

import contextlib
import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

TEXTS = [
    "data: [DONE]\n\n",
    "[DONE]",
    "a\n\nb\r\n\r\nevent: error\ndata: {}\n\n: comment\n\nid: 1\nretry: 0\n",
    "\u2028\u2029\u0085\u000b\u000c\u001c",
    "\U0001f600\U0001f1e9\U0001f1ea e\u0301 \u0928\u093f",
    '"}]}\\u0000\\n"',
    "\0\x01\x1b[31m\x7f",
    "</script><!-- ${7*7} {{7*7}}",
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "text"])
def test_any_text_comes_through_whole(serve: Any, text: str, chunk: int, is_chat: bool) -> None:
    """Row 46: by lines as the standard has it, each a JSON object, never half a character."""
    service = serve(text=lambda request: text, chunk=chunk)
    ask = service.chat if is_chat else service.complete
    whole = ask(max_tokens=150).json()["choices"][0]
    assert (whole["message"]["content"] if is_chat else whole["text"]) == text
    body = ask(max_tokens=150, stream=True).content
    events = body.split(b"\n\n")
    assert (events.pop(), events.pop()) == (b"", b"data: [DONE]")
    pieces = []
    for event in events:
        assert event.startswith(b"data: {")
        assert b"\n" not in event
        (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
        pieces.append(choice["delta"].get("content") or "" if is_chat else choice["text"])
    assert "".join(pieces) == text


def test_usage_comes_last_and_once(service: Any) -> None:
    """Row 48, for an answer that is cut off."""
    response = service.chat(stream=True, stream_options={"include_usage": True}, max_tokens=3)
    *chunks, last, done = [line[6:] for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == "length"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_begins_with_its_end(service: Any, stream: bool) -> None:
    """Row 25: the stop string is the first token."""
    response = service.complete(stop=["H"], stream=stream)
    texts = [line[6:] for line in response.text.split("\n\n")[:-2]] if stream else [response.text]
    bodies = map(json.loads, texts)
    choices = [choice for body in bodies for choice in body["choices"]]
    assert "".join(choice["text"] for choice in choices) == ""
    assert choices[-1]["finish_reason"] == "stop"


def test_a_failure_of_a_request_is_its_own(service: Any, canary: Any) -> None:
    """Row 47."""
    for _ in range(3):
        service.engine.refusal = KeyError("inside")
        assert service.chat(stream=True).status_code == 500
        service.engine.refusal = None
        assert service.chat().status_code == 200


def descriptors() -> int:
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


def request(stream: bool) -> bytes:
    body = json.dumps({"model": "tiny", "prompt": "x", "stream": stream, "n": 2}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_a_storm_of_clients_that_leave(service: Any, address: tuple[str, int]) -> None:
    """Rows 40, 41 and 45: at any moment from the connection to the end of the answer."""
    service.engine.step_s = 0.001
    before = descriptors()

    def storm(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(50):
            with socket.create_connection(address, timeout=20) as client:
                data = request(stream=choose.random() < 0.5)
                client.sendall(data[: choose.choice([0, 10, len(data) - 1, *[len(data)] * 5])])
                client.settimeout(choose.random() * 0.05 + 1e-4)
                with contextlib.suppress(TimeoutError):
                    client.recv(choose.choice([1, 100, 10_000]))

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline_s = time.monotonic() + 20
    while service.state.in_flight.count > 1 or descriptors() > before:  # the canary stays
        assert time.monotonic() < deadline_s, (service.state.in_flight.count, descriptors())
        time.sleep(0.01)
    requests = [r for r in service.engine.requests if not r.cache_salt]
    assert len(requests) > 100
    aborted = [request_id for request_id, _ in service.engine.finished]
    assert aborted
    assert len(set(aborted)) == len(aborted), "a request was ended twice"
    service.engine.step_s = 0.0
