"""The chat of the terminal, against a server that says what the test wants."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from leadline.server.cli import main

ERROR = {"message": "too hot: allowed 0 to 2", "type": "x", "param": None, "code": None}


class Handler(BaseHTTPRequestHandler):
    """Repeats the last message word by word; some words make it do otherwise."""

    server: "FakeServer"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "first"}, {"id": "second"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        text = body["messages"][-1]["content"]
        if text == "refuse":
            self._answer(400, {"error": ERROR})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self._send(b": keep-alive\n\n")
        self._event({"role": "assistant", "content": ""})
        for word in text.split(" "):
            if word == "fail":
                self._send(b"data: " + json.dumps({"error": ERROR}).encode() + b"\n\n")
                return
            if word == "cut":
                return
            if word == "wait":
                self.server.closing.wait()
                return
            self._event({"content": f"{word}."})
        self._send(b"data: [DONE]\n\n")

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _event(self, delta: dict[str, str]) -> None:
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        self._send(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def pipe(monkeypatch: pytest.MonkeyPatch, text: str, *flags: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main(["chat", *flags])


def test_lines_of_a_pipe_are_one_conversation(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--url", f"{server.url}/v1/", "--system", "Be brief.", "--max-tokens", "1k")
    assert pipe(monkeypatch, "hi there\n\n/help\n", *flags, "--temperature", "0") == 0
    assert capsys.readouterr().out == "hi.there.\n/help.\n"
    last = server.bodies[-1]
    assert last["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi there"},
        {"role": "assistant", "content": "hi.there."},
        {"role": "user", "content": "/help"},
    ]
    assert (last["model"], last["max_tokens"], last["temperature"]) == ("first", 1000, 0)


def test_what_is_not_given_is_left_to_the_server(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipe(monkeypatch, "hi\n", "--url", server.url, "--model", "second") == 0
    assert server.bodies == [
        {"model": "second", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    ]


def test_a_model_does_not_control_the_terminal(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a\x1b[2Jb\x07 \u9f8d \U0001f469\u200d\U0001f52c\n"
    assert pipe(monkeypatch, text, "--url", server.url) == 0
    assert capsys.readouterr().out == "a[2Jb.\u9f8d.\U0001f469\u200d\U0001f52c.\n"


@pytest.mark.parametrize(
    ("text", "answer", "words"),
    [
        ("refuse", "", "too hot: allowed 0 to 2"),
        ("some fail", "some.\n", "too hot: allowed 0 to 2"),
        ("some cut", "some.\n", "the answer was cut off"),
    ],
)
def test_a_failure_ends_a_pipe(
    text: str,
    answer: str,
    words: str,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pipe(monkeypatch, f"{text}\nmore\n", "--url", server.url) == 1
    captured = capsys.readouterr()
    assert captured.out == answer
    assert captured.err.startswith("leadline chat: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert len(server.bodies) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://", "localhost:8000", "http://[::1"])
def test_nobody_there(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipe(monkeypatch, "hi\n", "--url", url) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"leadline chat: no server answers at {url.rstrip('/')}")
    assert "leadline serve" in error
    assert error.count("\n") == 1


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, url: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "leadline.server.cli", "chat", "--url", url]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def expect(self, text: str) -> None:
        """Read until this has been shown, and forget what came up to there."""
        while text not in self.seen:
            assert select.select([self._ours], [], [], 20)[0], f"{self.seen!r} lacks {text!r}"
            self.seen += os.read(self._ours, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        os.close(self._ours)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    terminal = Terminal(server.url)
    yield terminal
    terminal.close()


def test_a_conversation_at_the_terminal(server: FakeServer, terminal: Terminal) -> None:
    terminal.expect("first at http://127.0.0.1")
    terminal.expect("> ")
    terminal.type("one wait")
    terminal.expect("one.")
    terminal.interrupt()
    terminal.expect("[stopped]")
    terminal.type("refuse")
    terminal.expect("too hot")
    terminal.expect("> ")
    terminal.interrupt()  # throws away a line, no more
    terminal.expect("> ")
    terminal.type("/what")
    terminal.expect("/reset")
    terminal.type("two")
    terminal.expect("two.")
    assert [message["content"] for message in server.bodies[-1]["messages"]] == [
        *("one wait", "one.", "two")
    ]
    terminal.type("/reset")
    terminal.expect("forgotten")
    terminal.type("three")
    terminal.expect("three.")
    assert len(server.bodies[-1]["messages"]) == 1
    terminal.type("/quit")
    assert terminal.process.wait(20) == 0
