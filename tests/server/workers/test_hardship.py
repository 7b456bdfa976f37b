"""A server whose engine is killed again and again, or whose machine lets it down."""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "ignore_eos": True,
    "seed": 1,
}
E2E = "e2e_request_latency_seconds_sum"
WAIT_S = 30.0  # generous: a starved machine is no failure


def chat(server: Any, content: str = "Hi", **fields: Any) -> httpx.Response:
    messages = {"messages": [{"role": "user", "content": content}]}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=CHAT | {"max_tokens": 3} | messages | fields, timeout=WAIT_S)


class Stream:
    """A running answer whose first event has come."""

    def __init__(self, server: Any, num_tokens: int, **fields: Any) -> None:
        self._client = httpx.Client(timeout=WAIT_S, trust_env=False)
        body = CHAT | {"stream": True, "max_tokens": num_tokens} | fields
        url = f"{server.url}/v1/chat/completions"
        request = self._client.build_request("POST", url, json=body)
        self._lines = self._client.send(request, stream=True).iter_lines()
        next(self._lines)

    def text(self) -> str:
        """What is left of it; its end is the right one."""
        *events, done = [line.removeprefix("data: ") for line in self._lines if line]
        assert done == "[DONE]"
        self._client.close()
        choices = [json.loads(event)["choices"][0] for event in events]
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.fixture
def single(start: Callable[..., Any]) -> Callable[..., Any]:
    """A server of one process."""
    return lambda **options: start(api_workers=1, **options)


def probes(server: Any) -> list[int]:
    paths = ("livez", "readyz", "health")
    return [httpx.get(f"{server.url}/{path}", timeout=WAIT_S).status_code for path in paths]


def test_an_engine_that_hangs_is_replaced(single: Any) -> None:
    with single(engine_timeout_s=3.0) as server:
        whole = Stream(server, 200).text()
        stream, engine = Stream(server, 200), server.engine
        os.kill(engine, signal.SIGSTOP)
        server.wait_until(lambda: probes(server) == [200, 503, 503], "the notice")
        assert httpx.get(f"{server.url}/health").json()["status"] == "stuck"
        server.wait_until(lambda: "is started again: it had work" in server.errors, "its end")
        assert stream.text() == whole
        assert probes(server) == [200, 200, 200]
        assert server.engine != engine


def insist(server: Any, *, stream: bool) -> httpx.Response:
    """Send what kills the engine, once more where it is being started again."""
    while (answer := chat(server, "x", stream=stream)).status_code == 503:
        time.sleep(0.05)
    return answer


def test_a_request_that_kills_the_engine_ends_alone(single: Any) -> None:
    """It is tried once more, alone; the requests beside it go on, and say the same."""
    with single(builder="poisoned", max_engine_restarts=10) as server:
        whole = Stream(server, 300).text()
        streams = [Stream(server, 300) for _ in range(3)]
        with ThreadPoolExecutor(2) as pool:
            killers = [pool.submit(insist, server, stream=stream) for stream in (False, True)]
            answers = [killer.result() for killer in killers]
        assert [stream.text() for stream in streams] == [whole] * 3
        for answer in answers:
            assert answer.status_code == 500
            assert "died each time" in answer.json()["error"]["message"]
        assert chat(server).status_code == 200
        assert 2 <= server.errors.count("has died and is started again") <= 4


def test_without_resumption_requests_end_at_once(single: Any) -> None:
    with single(resume=False, max_engine_restarts=10) as server:
        stream = Stream(server, 390)
        with ThreadPoolExecutor(1) as pool:
            whole = pool.submit(chat, server, max_tokens=390)
            server.wait_until(lambda: running(server) == 2, "both run")
            os.kill(server.engine, signal.SIGKILL)
            lines: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                lines += stream._lines
            assert whole.result().status_code == 503
        assert whole.result().json()["error"]["code"] == "engine_dead"
        server.wait_until(lambda: probes(server) == [200, 200, 200], "the next engine")
        assert chat(server).status_code == 200


STREAMS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/completions": ({"prompt": "Hi", "max_tokens": 390}, '"code":"engine_dead"'),
    "/v1/responses": ({"input": "Hi", "max_output_tokens": 390}, "event: response.failed"),
    "/v1/messages": ({"messages": CHAT["messages"], "max_tokens": 390}, "event: error"),
}


def test_every_dialect_tells_of_the_end(single: Any) -> None:
    def read(path: str) -> tuple[str, bool]:
        """What comes of a stream, and whether it was cut."""
        body, text = {"model": "m", "stream": True, "ignore_eos": True} | STREAMS[path][0], ""
        try:
            with httpx.stream("POST", server.url + path, json=body, timeout=WAIT_S) as answer:
                for piece in answer.iter_text():
                    text += piece
        except httpx.RemoteProtocolError:
            return text, True
        return text, False

    with single(resume=False, max_engine_restarts=10) as server:
        with ThreadPoolExecutor(len(STREAMS)) as pool:
            answers = {path: pool.submit(read, path) for path in STREAMS}
            server.wait_until(lambda: running(server) == len(STREAMS), "all run")
            os.kill(server.engine, signal.SIGKILL)
        for path, answer in answers.items():
            text, is_cut = answer.result()
            assert is_cut, path
            assert text.count(STREAMS[path][1]) == 1, (path, text[-500:])
            assert "error" in text.removesuffix("\n\n").split("\n\n")[-1]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a"},
        {"guided_json": {"type": "object"}},
    ],
)
def test_a_tokenizer_without_an_end_token_keeps_to_no_grammar(
    server: Any, fields: dict[str, Any]
) -> None:
    response = chat(server, **fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"].partition(".")[0] in {*fields, "structured_outputs"}
    assert "with this model's tokenizer" in error["message"]


def running(server: Any) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=WAIT_S).text
    (line,) = [x for x in text.splitlines() if x.startswith("leadline:num_requests_running{")]
    return float(line.rpartition(" ")[2])


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def test_more_connections_than_files(single: Any, crowd: list[socket.socket]) -> None:
    """Row 75: what runs goes on, and there is room again when the crowd has left."""
    with single() as server:
        whole = Stream(server, 200).text()
        stream = Stream(server, 200)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, 256))
        host, _, port = server.url.removeprefix("http://").partition(":")
        address = host, int(port)
        crowd.extend(socket.create_connection(address, timeout=WAIT_S) for _ in range(400))
        assert stream.text() == whole
        while crowd:
            crowd.pop().close()
        server.wait_until(lambda: is_answered(server), "room again")
        assert chat(server).status_code == 200
        assert server.errors.count("Too many open files") < 1000, "the log is flooded"
        server.send(signal.SIGTERM)
        assert server.end() == 0


def is_answered(server: Any) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=WAIT_S).status_code == 200
    except httpx.TransportError:
        return False


def test_nobody_reads_what_it_prints(single: Any) -> None:
    """Row 75: the other end of standard output is closed."""
    with single(max_engine_restarts=3, log_level="debug") as server:
        stream = Stream(server, 200)
        server.process.stdout.close()
        server.process.stdout = None
        os.kill(server.engine, signal.SIGKILL)
        server.send(signal.SIGTERM)
        stream.text()
        assert server.end() == 0
        assert "BrokenPipe" not in server.errors


def test_nowhere_to_write(single: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 75: no home and no cache that can be written; only sockets need a directory."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.setenv(name, "/proc/nowhere")
    with single() as server:
        assert chat(server).status_code == 200
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in server.errors


CLOCK = """
import os, time
_time = time.time
time.time = lambda: _time() + 3600 * os.path.exists(os.environ["SET_FORWARD"])
"""


def test_the_time_is_set_anew(single: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 75: deadlines go by a clock that nobody sets."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", paths)
    monkeypatch.setenv("SET_FORWARD", str(tmp_path / "forward"))
    with single() as server:
        whole = Stream(server, 100).text()
        stream = Stream(server, 100, deadline_s=600.0)
        (tmp_path / "forward").touch()
        assert stream.text() == whole
        answer = chat(server)
        assert answer.json()["created"] > time.time() + 3000, "the clock was not set"
        (tmp_path / "forward").unlink()
        assert chat(server, deadline_s=600.0).status_code == 200
        text = httpx.get(f"{server.url}/metrics", timeout=WAIT_S).text
        (line,) = [x for x in text.splitlines() if x.startswith(f"leadline:{E2E}{{")]
        assert float(line.rpartition(" ")[2]) < 600
