"""The chat of the terminal, against a server that says what the test wants."""

import io
import json
import os
import pty
import select
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from leadline.server import terminal_chat
from leadline.server.cli import main
from leadline.server.config import KEY_VARIABLE

ERROR = {"message": "too hot: allowed 0 to 2", "type": "x", "param": None, "code": None}


def call(index: int, **function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": function}]}


class Handler(BaseHTTPRequestHandler):
    """Repeats the last message word by word; some words make it do otherwise."""

    server: "FakeServer"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("authorization"))
        if self.server.key not in (None, self.server.keys[-1]):
            self._answer(401, {"error": ERROR | {"message": "an API key is needed"}})
            return
        self._answer(200, {"object": "list", "data": [{"id": "first"}, {"id": "second"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("authorization"))
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
            if word == "think":
                self._event({"reasoning_content": "hm:smile:", "reasoning": "hm:smile:"})
                self._event({"reasoning_content": " [b]m\x1b[2J", "reasoning": "-"})
                continue
            if word == "call":
                self._event(call(0, name="get_time", arguments=""))
                self._event(call(0, arguments='{"city": "Oslo"}'))
                self._event(call(1, name="stop", arguments="{}"))
                continue
            self._event({"content": f"{word}."})
        self._send(b"data: [DONE]\n\n")

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _event(self, delta: dict[str, Any]) -> None:
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        self._send(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key: str | None = None
        self.keys: list[str | None] = []
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

    def __init__(self, url: str, term: str = "dumb") -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "leadline.server.cli", "chat", "--url", url]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": term},
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

    def interrupt_until(self, text: str) -> None:
        """Interrupt until this has been shown.

        Python's readline misses a signal between its prompt and its waiting.
        """
        for _ in range(100):
            self.interrupt()
            while select.select([self._ours], [], [], 0.2)[0]:
                self.seen += os.read(self._ours, 4096).decode()
            if text in self.seen:
                break
        self.expect(text)

    def close(self) -> None:
        os.close(self._ours)
        self.process.kill()
        self.process.wait()


def test_a_pipe_is_given_content_and_calls(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "think one\nthink call\nthink two call\nlast\n"
    assert pipe(monkeypatch, text, "--url", server.url) == 0
    calls = '-> get_time {"city": "Oslo"}\n-> stop {}\n'
    assert capsys.readouterr().out == f"one.\n{calls}two.\n{calls}last.\n"
    assert [message["content"] for message in server.bodies[-1]["messages"]] == [
        *("think one", "one.", "think two call", "two.", "last")
    ]


def test_thinking_and_demo_tools(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--url", server.url, "--thinking", "--demo-tools")
    assert pipe(monkeypatch, "one call\nlast\n", *flags) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["one.", '-> get_time {"city": "Oslo"}', "-> stop {}"]
    assert shown[3].startswith('<- {"time": "')
    assert shown[4].startswith('<- {"error": "there is no tool stop')
    assert shown[-1] == "last."
    body = server.bodies[-1]
    assert body["chat_template_kwargs"] == {"thinking": True}
    assert [tool["function"]["name"] for tool in body["tools"]] == [
        "get_weather",
        "get_time",
        "add",
    ]
    question, calling, time, stop, answer, last = body["messages"]
    assert (question["content"], last["content"]) == ("one call", "last")
    assert (calling["role"], calling["content"]) == ("assistant", "one.")
    assert [call["function"] for call in calling["tool_calls"]] == [
        {"name": "get_time", "arguments": '{"city": "Oslo"}'},
        {"name": "stop", "arguments": "{}"},
    ]
    ids = [call["id"] for call in calling["tool_calls"]]
    assert len(set(ids)) == 2
    assert [time["tool_call_id"], stop["tool_call_id"]] == ids
    assert (time["role"], stop["role"], answer["role"]) == ("tool", "tool", "assistant")


def test_calls_have_an_end(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal_chat, "answer_call", lambda name, arguments: "call")
    assert pipe(monkeypatch, "call\n", "--url", server.url, "--demo-tools") == 0
    assert len(server.bodies) == 8
    assert capsys.readouterr().out.count("-> get_time") == 8


def test_the_key_from_flag_file_and_environment(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sk-file\n")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert pipe(monkeypatch, "hi\n", "--url", server.url) == 0
    monkeypatch.setenv(KEY_VARIABLE, "sk-env")
    server.key = "Bearer sk-env"
    assert pipe(monkeypatch, "hi\n", "--url", server.url) == 0
    server.key = "Bearer sk-file"
    assert pipe(monkeypatch, "hi\n", "--url", server.url, "--api-key", f"@{tmp_path}/key") == 0
    assert server.keys == [None] * 2 + ["Bearer sk-env"] * 2 + ["Bearer sk-file"] * 2


def test_a_key_that_does_not_fit(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    server.key = "Bearer sk-1"
    cases = [
        ((), "an API key is needed; here with --api-key, or in $LEADLINE_API_KEY"),
        (("--api-key", "sk-2"), "an API key is needed"),
        (("--api-key", "two words"), "--api-key: key 1 of 1 is not allowed"),
        (("--api-key", "@/nowhere"), "--api-key: the file /nowhere cannot be read"),
    ]
    for flags, words in cases:
        assert pipe(monkeypatch, "hi\n", "--url", server.url, *flags) == 1
        error = capsys.readouterr().err
        assert error.startswith("leadline chat: ")
        assert words in error
        assert error.count("\n") == 1
        assert "sk-2" not in error
    assert server.bodies == []


def test_a_certificate_that_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FakeServer() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = server.url.replace("http", "https")
        monkeypatch.setattr(server, "handle_error", lambda *args: None)
        try:
            assert pipe(monkeypatch, "hi\n", "--url", url) == 1
            assert "is not trusted" in capsys.readouterr().err
            authority.cert_pem.write_to_path(tmp_path / "ca.pem")
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            assert pipe(monkeypatch, "hi\n", "--url", url) == 0
            assert capsys.readouterr().out == "hi.\n"
        finally:
            server.shutdown()
            thread.join()


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
    terminal.interrupt_until("> ")  # throws away a line, no more
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


def test_reasoning_is_dimmed_at_the_terminal(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(server.url, term="xterm")
    try:
        terminal.expect("> ")
        terminal.type("think one call")
        terminal.expect("\x1b[2mhm:smile:\x1b[0m\x1b[2m [b]m[2J\x1b[0m\r\n")
        terminal.expect("one.\r\n-> get_time")
        terminal.expect("-> stop {}\r\n")
    finally:
        terminal.close()
