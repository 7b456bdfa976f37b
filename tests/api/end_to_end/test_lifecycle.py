"""How a real `leadline serve` drains, dies and fails to start, with the product's own engine."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from leadline.loader.hub import resolve_model

WAIT_S = 120.0  # generous: a starved machine is no failure
Cli = Callable[..., Any]


class Answer:
    """A streamed answer of `num_tokens` tokens, read in a thread of its own."""

    def __init__(self, url: str, num_tokens: int) -> None:
        self.lines: list[str] = []
        self.error: Exception | None = None
        self.has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url, num_tokens), daemon=True)
        self._thread.start()
        assert self.has_begun.wait(WAIT_S)

    def _read(self, url: str, num_tokens: int) -> None:
        body = {
            "model": "demo",
            "prompt": "Once",
            "max_tokens": num_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=WAIT_S) as answer:
                for line in filter(None, answer.iter_lines()):
                    self.lines.append(line.removeprefix("data: "))
                    self.has_begun.set()
        except httpx.HTTPError as error:
            self.error = error

    def wait(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def complete(url: str) -> httpx.Response:
    body = {"model": "demo", "prompt": "Once", "max_tokens": 1}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=WAIT_S)


def test_first_signal_drains(own_service: Any) -> None:
    engine_pid = own_service.engine_pid()
    answer = Answer(own_service.url, 64)
    own_service.send(signal.SIGTERM)
    refused = complete(own_service.url)
    while refused.status_code == 200:  # the signal has not been handled yet
        refused = complete(own_service.url)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    answer.wait()
    assert answer.lines[-1] == "[DONE]"
    assert json.loads(answer.lines[-2])["usage"]["completion_tokens"] == 64
    assert own_service.wait() == 0
    assert own_service.is_gone(engine_pid)


def test_a_stream_outlives_an_engine_that_dies(own_service: Any) -> None:
    answer = Answer(own_service.url, 1500)
    os.kill(own_service.engine_pid(), signal.SIGKILL)
    answer.wait()
    assert answer.lines[-1] == "[DONE]"
    assert json.loads(answer.lines[-2])["usage"]["completion_tokens"] == 1500
    assert answer.error is None


def test_an_engine_that_is_not_started_again_ends_all(brittle_service: Any) -> None:
    answer = Answer(brittle_service.url, 1500)
    os.kill(brittle_service.engine_pid(), signal.SIGKILL)
    answer.wait()
    assert "[DONE]" not in answer.lines
    assert "error" in json.loads(answer.lines[-1])
    assert isinstance(answer.error, httpx.RemoteProtocolError), "the stream did not end cleanly"
    assert brittle_service.wait() == 1
    assert "engine" in brittle_service.errors()[-1]


def test_broken_checkpoint_says_what_is_wrong_last(cli: Cli, tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(resolve_model("leadline-demo"), directory)
    (directory / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    done = cli("serve", str(directory), "--port", "0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "model.embed_tokens.weight" in done.stderr
    assert "is missing" in done.stderr
    assert "leadline doctor" in done.stderr.splitlines()[-1]
