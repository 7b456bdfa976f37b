"""What a client may do to a connection: seen from a raw socket, against the server as it runs."""

import asyncio
import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from starlette.responses import Response

from leadline.engine.request import FinishReason
from leadline.server.http_server import HttpServer
from leadline.server.limits import Limits
from leadline.server.wire import BoundedProtocol

LIMITS = Limits()
MAX_JSON_DEPTH = LIMITS.json_depth

WAIT_S = 20.0
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


def set_limits(monkeypatch: Any, **values: Any) -> None:
    """Of the connections of servers that run already."""
    monkeypatch.setattr(BoundedProtocol, "limits", Limits(**values))


@contextlib.contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=WAIT_S) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65536):
            data += chunk
    return data


def read_all_until(client: socket.socket, end: bytes) -> bytes:
    data = bytearray()
    while end not in data[-100:] and (chunk := client.recv(65536)):
        data += chunk
    return bytes(data)


def is_answered(client: socket.socket) -> bool:
    """Whether a request that is sent now is answered; the connection stays open."""
    client.sendall(GET + b"\r\n")
    return read_all_until(client, b"}").startswith(b"HTTP/1.1 200")


def status_and_error(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error


def is_served(address: tuple[str, int]) -> bool:
    with connected(address) as client:
        client.sendall(GET + b"Connection: close\r\n\r\n")
        return read_all(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * LIMITS.head_bytes,
        b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(70)),
        b"".join(b"X-%d: x\r\n" % i for i in range(LIMITS.headers + 1)),
    ],
    ids=["one", "large", "many"],
)
@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "open"])
def test_a_head_beyond_its_limits(address: tuple[str, int], head: bytes, end: bytes) -> None:
    if end == b"" and len(head) < LIMITS.head_bytes:
        end = b"\r\n"  # how many there are is known at the end
    with connected(address) as client:
        client.sendall(GET + head + end)
        while not end and not select.select([client], [], [], 0.01)[0]:
            client.sendall(b"x" * 1000)
        status, error = status_and_error(read_all(client))
    assert (status, error["code"]) == (431, "request_header_fields_too_large")
    assert is_served(address)


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/messages/count_tokens"])
def test_a_head_beyond_its_limits_in_anthropics_shape(
    address: tuple[str, int], path: bytes
) -> None:
    start = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n"
    with connected(address) as client:
        client.sendall(start + b"X: " + b"x" * LIMITS.head_bytes + b"\r\n\r\n")
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431")
    assert b"request-id: mine" in head.lower().split(b"\r\n")
    answer = json.loads(body)
    assert (answer["type"], answer["request_id"]) == ("error", "mine")
    assert answer["error"]["type"] == "invalid_request_error"
    assert "less" in answer["error"]["message"]


def test_a_head_without_end_is_not_kept(address: tuple[str, int]) -> None:
    with connected(address) as client:
        client.sendall(GET + b"X: ")
        num_sent, is_open = 0, True
        while is_open and num_sent < 50 * 2**20:
            try:
                num_sent += client.send(b"x" * 2**16)
            except ConnectionError:
                is_open = False
    assert not is_open
    assert num_sent < 20 * 2**20  # what fits into the kernel's buffers
    assert is_served(address)


def test_a_long_url_counts(address: tuple[str, int]) -> None:
    with connected(address) as client:
        client.sendall(b"GET /" + b"x" * LIMITS.head_bytes + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_and_error(read_all(client))[0] == 414


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_body_does_not_wait_for_the_receipt_of_its_head(run: Any) -> None:
    """As the kernel lets small writes wait unless it is told not to."""

    async def is_nodelay() -> int:
        server = HttpServer(Response("x"), access_log=False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server.start(listener)
            _, writer = await asyncio.open_connection(*listener.getsockname())
            while not server.server_state.connections:
                await asyncio.sleep(0.001)
            (connection,) = server.server_state.connections
            accepted = connection.transport.get_extra_info("socket")
            value = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await server.stop()
        return bool(value)

    assert run(is_nodelay())


def test_heads_within_limits_on_one_connection(address: tuple[str, int]) -> None:
    """Each request has the whole limit."""
    large = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(40))
    with connected(address) as client:
        for _ in range(4):
            client.sendall(GET + large + b"\r\n")
            assert read_all_until(client, b"}").startswith(b"HTTP/1.1 200")
        client.sendall((GET + b"\r\n") * 20 + GET + b"Connection: close\r\n\r\n")  # pipelined
        assert read_all(client).count(b"HTTP/1.1 200") == 21


def test_a_head_that_comes_slowly(address: tuple[str, int], monkeypatch: Any) -> None:
    set_limits(monkeypatch, head_s=0.2)
    with connected(address) as client:
        client.sendall(GET)
        status, error = status_and_error(read_all(client))
    assert (status, error["code"]) == (408, "request_timeout")
    with connected(address) as client:  # a second request is timed too, idling is not
        assert is_answered(client)
        time.sleep(0.5)
        assert is_answered(client)
        client.sendall(b"GET /li")
        assert status_and_error(read_all(client))[0] == 408


def test_a_body_that_comes_slowly(service: Any, address: tuple[str, int]) -> None:
    service.state.limits = Limits(body_pause_s=0.2)
    with connected(address) as client:
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        status, error = status_and_error(read_all(client))
    assert (status, error["code"]) == (408, "request_timeout")


def test_too_many_connections(address: tuple[str, int], monkeypatch: Any) -> None:
    set_limits(monkeypatch, connections=3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(address)) for _ in range(3)]
        for client in held:
            assert is_answered(client)
        with connected(address) as client:
            answer = read_all(client)
        status, error = status_and_error(answer)
        assert (status, error["code"]) == (503, "too_many_connections")
        assert b"Retry-After: 1" in answer
        assert is_answered(held[0])
        held[1].close()
        deadline_s = time.monotonic() + WAIT_S
        while not is_served(address):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def post(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(data)
    ) + data


@contextlib.contextmanager
def unread(service: Any, address: tuple[str, int], **fields: Any) -> Iterator[socket.socket]:
    """A client that asks for more than the kernel buffers, and does not read."""
    service.engine.text = lambda request: "x" * request.params.max_tokens
    service.engine.ends = False
    service.state.max_model_len = 2**26
    with contextlib.closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(WAIT_S)
        client.connect(address)
        client.sendall(post({"model": "tiny", "prompt": "x", **fields}))
        yield client


def test_a_stream_that_is_not_read_is_cut(
    service: Any, address: tuple[str, int], monkeypatch: Any
) -> None:
    set_limits(monkeypatch, unread_s=0.3)
    with unread(service, address, stream=True, max_tokens=100_000) as client:
        while not service.engine.requests:
            time.sleep(0.01)
        assert is_served(address)  # others are not disturbed
        assert service.engine.wait_finished() == [FinishReason.ABORT]
        assert b"[DONE]" not in read_all(client)
    assert is_served(address)


def test_a_stream_that_is_read_slowly_goes_on(
    service: Any, address: tuple[str, int], monkeypatch: Any
) -> None:
    set_limits(monkeypatch, unread_s=2.0)
    with unread(service, address, stream=True, max_tokens=50_000) as client:
        time.sleep(1.0)
        assert b"[DONE]" in read_all_until(client, b"[DONE]")
    assert service.engine.finished == []


def test_an_answer_that_is_not_read_is_cut(served: Any, monkeypatch: Any) -> None:
    set_limits(monkeypatch, unread_s=0.2)
    body = b"x" * 2**25
    with served(Response(body)) as (address, server), connected(address) as client:
        client.sendall(GET + b"\r\n")
        deadline_s = time.monotonic() + WAIT_S
        while not server.server_state.connections or server.server_state.total_requests == 0:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        while server.server_state.connections:
            assert time.monotonic() < deadline_s, "the connection is still there"
            time.sleep(0.01)
        assert len(read_all(client)) < len(body)


@pytest.mark.parametrize("kind", ["list", "object", "mixed"])
def test_json_may_not_be_too_deep(service: Any, kind: str) -> None:
    opening, closing = {"list": ("[", "]"), "object": ('{"x":', "}"), "mixed": ('[{"x":', "}]")}[
        kind
    ]
    per_round = 2 if kind == "mixed" else 1

    def send(depth: int) -> Any:
        rounds = (depth - 1) // per_round
        inner = opening * rounds + "1" + closing * rounds
        return service.post(
            "/v1/completions", f'{{"model":"tiny","prompt":"x","y":{inner}}}'.encode()
        )

    assert send(MAX_JSON_DEPTH - 1).status_code == 200
    for depth in (MAX_JSON_DEPTH + 3, 100_000):
        response = send(depth)
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["code"] == "invalid_json"
        assert str(MAX_JSON_DEPTH) in error["message"]


def test_wide_json_is_not_deep(service: Any) -> None:
    body = {"model": "tiny", "prompt": "[{" * 500, "y": [[{}]] * 1000, "max_tokens": 1}
    service.state.max_model_len = 2000
    assert service.post("/v1/completions", body).status_code == 200
