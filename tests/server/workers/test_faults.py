"""What becomes of streams, processes and counters when a process dies or is to end."""

import contextlib
import os
import shutil
import signal
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from benchmarks.processes import command_of, tree_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

BACKGROUND = {"model": "m", "input": "Hi", "max_output_tokens": 390, "background": True}


class Stream:
    """A running answer whose first event has come."""

    def __init__(self, server: Any, client: httpx.Client, num_tokens: int) -> None:
        self._server = server
        self._id = f"stream-{id(self)}"
        body = CHAT | {"max_tokens": num_tokens, "ignore_eos": True, "stream": True}
        headers = {"x-request-id": self._id}
        request = client.build_request("POST", "/v1/chat/completions", json=body, headers=headers)
        self._response = client.send(request, stream=True)
        assert self._response.status_code == 200
        self._lines = self._response.iter_lines()
        next(self._lines)

    def rest(self) -> list[str]:
        return [line for line in self._lines if line]

    @property
    def worker(self) -> int:
        """The process that answers it."""
        return int(self._server.worker_of(self._id))


@contextlib.contextmanager
def two_streams(server: Any, num_tokens: int) -> Iterator[tuple[Stream, Stream]]:
    """Of different workers."""
    with server.clients() as clients:
        one, other = [Stream(server, client, num_tokens) for client in clients]
        assert one.worker != other.worker
        yield one, other


def metric(server: Any, name: str) -> float:
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


def test_a_worker_that_dies(start: Any) -> None:
    background = CHAT | {"max_tokens": 1}
    with start() as server:
        with server.clients() as (one, _):
            assert one.post("/v1/chat/completions", json=background).status_code == 200
        with server.clients() as clients:
            made = clients[0].post("/v1/responses", json=BACKGROUND).json()
            one, other = [Stream(server, client, 200) for client in clients]
            dead = one.worker
            os.kill(dead, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                one.rest()
            assert other.rest()[-1] == "data: [DONE]"
        server.wait_until(lambda: server.errors.count(" answers (process") == 3, "a new worker")
        server.wait_until(
            lambda: metric(server, "leadline:num_requests_running") == 0, "the end of its work"
        )
        assert dead not in server.workers
        assert len(server.workers) == 2
        path = f"/v1/responses/{made['id']}"
        with server.clients() as clients:
            for client in clients:
                server.wait_until(
                    lambda client=client: client.get(path).json()["status"] == "failed",
                    "the end of its response",
                )
                assert client.get(path).json()["error"]["code"] == "server_error"
        with server.clients() as clients:
            answers = [client.post("/v1/chat/completions", json=background) for client in clients]
        assert [answer.status_code for answer in answers] == [200, 200]
        # The stream that was cut was never counted; what the dead one had counted still is.
        assert metric(server, "leadline:request_generation_tokens_count") == 4
        assert "has died and is started again: its process ended unexpectedly" in server.errors
        server.send(signal.SIGTERM)
        assert server.end() == 0


def test_a_signal_drains_all(start: Any) -> None:
    with start() as server:
        tree = tree_of(server.process.pid)
        assert len(tree) >= 8, "the server, its engine, two workers, and what checks requests"
        with two_streams(server, 150) as streams:
            server.send(signal.SIGTERM)
            server.read_until("Stopping: running requests (2)")
            with server.clients() as clients:
                refused = [client.post("/v1/chat/completions", json=CHAT) for client in clients]
                ready = [client.get("/readyz") for client in clients]
            rests = [stream.rest() for stream in streams]
        status = server.end()
        assert status == 0
        assert [response.status_code for response in refused] == [503, 503]
        assert [response.json()["status"] for response in ready] == ["draining"] * 2
        assert [rest[-1] for rest in rests] == ["data: [DONE]"] * 2
        assert not any(map(command_of, tree))
        assert "Traceback" not in server.errors
        assert server.head.count("\nkeys ") == 1, "one table"


def test_requests_that_outlast_the_drain_are_aborted(start: Any) -> None:
    with start(drain_timeout_s=0.1) as server:
        with two_streams(server, 390) as streams:
            server.send(signal.SIGTERM)
            for stream in streams:
                with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                    stream.rest()
        assert server.end() == 0
        assert "requests that did not finish in time: 2" in server.errors


def test_a_second_signal_ends_at_once(start: Any) -> None:
    with start() as server:
        tree = tree_of(server.process.pid)
        with two_streams(server, 390) as streams:
            server.send(signal.SIGTERM)
            server.read_until("Stopping: running requests (2)")
            server.send(signal.SIGTERM)
            for stream in streams:
                with pytest.raises(httpx.HTTPError):
                    stream.rest()
        assert server.end() == 128 + signal.SIGTERM
        server.wait_until(lambda: not any(map(command_of, tree)), "the end of all processes")
        assert "Traceback" not in server.errors, server.errors


def test_nothing_outlives_the_parent(start: Any) -> None:
    with start() as server:
        tree = tree_of(server.process.pid)
        with two_streams(server, 390):
            server.send(signal.SIGKILL)
            server.end()
        server.wait_until(lambda: not any(map(command_of, tree)), "the end of all processes")


def test_streams_of_both_outlive_their_engine(start: Any) -> None:
    with start() as server:
        with two_streams(server, 100) as streams:
            whole = [stream.rest() for stream in streams]
        with two_streams(server, 100) as streams:
            os.kill(server.engine, signal.SIGKILL)
            assert [len(stream.rest()) for stream in streams] == [len(rest) for rest in whole]
        with server.clients() as clients:
            assert [client.get("/readyz").status_code for client in clients] == [200, 200]


def test_an_engine_that_is_gone_ends_all(start: Any) -> None:
    with start(max_engine_restarts=0) as server:
        with two_streams(server, 390) as streams:
            os.kill(server.engine, signal.SIGKILL)
            for stream in streams:
                with pytest.raises(httpx.RemoteProtocolError):
                    stream.rest()
        assert server.end() == 1
        assert server.errors.splitlines()[-1].startswith("leadline serve: the engine has ended: ")


def test_all_notice_that_the_engine_hangs(start: Any) -> None:
    """Also a worker that has asked nothing of it, and the parent, which ends it."""
    with start(engine_timeout_s=2.0) as server, server.clients() as (one, other):
        stream, engine = Stream(server, one, 390), server.engine
        assert other.get("/readyz").status_code == 200
        os.kill(engine, signal.SIGSTOP)
        server.wait_until(lambda: other.get("/health").json()["status"] == "stuck", "the notice")
        assert other.get("/readyz").status_code == 503
        server.wait_until(lambda: "is started again: it had work" in server.errors, "its end")
        assert stream.rest()[-1] == "data: [DONE]"
        assert other.get("/readyz").status_code == 200
        assert server.engine != engine


def test_all_notice_that_the_engine_hangs_while_it_sleeps(start: Any) -> None:
    """Of an order that was given through another worker."""
    with start(engine_timeout_s=2.0) as server, server.clients() as (one, other):
        assert one.post("/sleep").json()["status"] == "asleep"
        engine = server.engine
        os.kill(engine, signal.SIGSTOP)
        server.wait_until(lambda: other.get("/is_sleeping").json()["is_sleeping"], "its sleep")
        assert other.get("/health").json()["status"] == "asleep"
        with ThreadPoolExecutor() as pool:
            waking = pool.submit(one.post, "/wake_up")
            server.wait_until(lambda: other.get("/health").json()["status"] == "stuck", "notice")
            assert waking.result().json()["error"]["code"] == "engine_restarting"
        assert "is started again: it had work" in server.errors
        server.wait_until(lambda: other.get("/health").json()["status"] == "asleep", "the next")
        assert server.engine != engine
        assert other.post("/wake_up").json()["status"] == "awake"
        assert other.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1}).status_code == 200


def test_connections_are_bounded_together(start: Any) -> None:
    with start(limit=["connections=2"]) as server:
        with server.clients(), server.client() as third:
            refused = third.get("/livez")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_connections"
        assert "there are 2 connections already" in refused.json()["error"]["message"]

        def is_let_in() -> bool:
            with server.client() as client:
                return client.get("/livez").status_code == 200

        server.wait_until(is_let_in, "room for another connection")


def test_certificates_are_read_again_everywhere(start: Any, tmp_path: Path) -> None:
    authorities = [trustme.CA(), trustme.CA()]
    file = tmp_path / "server.pem"

    def use(authority: trustme.CA) -> None:
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)

    use(authorities[0])
    with start(ssl_certfile=str(file)) as server:
        contexts = [ssl.create_default_context() for _ in authorities]
        for authority, context in zip(authorities, contexts, strict=True):
            authority.configure_trust(context)
        for _ in range(2):
            with server.client(verify=contexts[0]) as client:
                assert client.get("/livez").status_code == 200
        with server.client(verify=contexts[1]) as client, pytest.raises(httpx.ConnectError):
            client.get("/livez")
        use(authorities[1])
        server.send(signal.SIGHUP)
        server.wait_until(lambda: server.errors.count("as it is now") == 2, "new certificates")
        for _ in range(2):
            with server.client(verify=contexts[1]) as client:
                assert client.get("/livez").status_code == 200
        assert len(server.workers) == 2


def test_what_is_wrong_with_all_workers_is_said_once(
    launch: Any, model: Path, tmp_path: Path
) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    (own / "chat_template.jinja").write_text("{{ messages|frobnicate }}")
    with launch(model=own) as server:
        assert server.end() == 1
        *_, line = server.errors.splitlines()
        assert server.errors.count("leadline serve: ") == 1
    assert line.startswith("leadline serve: ")
    assert "frobnicate" in line
