"""Requests that are bad, odd or hostile HTTP, from a raw socket to the server as it runs."""

import json
import re
import socket
from typing import Any

import pytest

from leadline.server.app import create_app
from leadline.server.doorway import Doorway
from leadline.server.limits import Limits

Address = tuple[str, int]
BODY = b'{"model":"tiny","prompt":"x"}'
JSON = b"Content-Type: application/json\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"


def exchange(address: Address, *pieces: bytes) -> bytes:
    """All that the server answers until it closes."""
    with socket.create_connection(address, timeout=20) as client:
        for piece in pieces:
            client.sendall(piece)
        answer = b""
        while data := client.recv(2**16):
            answer += data
    return answer


def status_of(answer: bytes) -> int:
    """The status; what is no success has the envelope and an id."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert b"\r\nx-request-id: " in head.lower()
    if status >= 400:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    return status


def post(*lines: bytes, body: bytes = BODY, head: bytes = POST) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return head + JSON + length + CLOSE + b"".join(lines) + b"\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    lines = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return POST + JSON + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n" + lines + b"0\r\n\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_a_wrong_method(address: Address, method: str) -> None:
    """Row 3."""
    request = b"%s /v1/completions HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method.encode(), CLOSE)
    head, _, body = exchange(address, request).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: POST" in head
    assert (method == "HEAD") == (body == b"")


@pytest.mark.parametrize(
    "line",
    [
        b"BREW /v1/models",
        b"G@T /v1/models",
        b"get /v1/models",
        b"GET",
        b"GET  ",
        b"\0\0\0\0",
        b"GET \xff",
    ],
)
def test_a_first_line_that_is_none(address: Address, line: bytes) -> None:
    assert status_of(exchange(address, line + b" HTTP/1.1\r\nHost: x\r\n\r\n")) in (400, 404, 405)


def test_metrics_do_not_grow_with_what_clients_invent(service: Any, address: Address) -> None:
    """Row 3: no label is taken from a request."""

    def invent(at: int) -> set[str]:
        """Send what nobody has sent before; returns the series that there are then."""
        service.http.request(f"M{at}", f"/p{at}")
        service.http.get(f"/v1/models/m{at}")
        service.post("/v1/completions", {"model": f"m{at}", "prompt": "x", f"f{at}": 1})
        service.complete(user=f"u{at}", cache_salt=f"s{at}", **{f"field_{at}": 1})
        text = service.http.get("/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines() if line[:1] not in ("#", "")}

    invent(0)
    before = invent(1)
    assert all(invent(at) == before for at in range(2, 30))


@pytest.mark.parametrize("body", [b'{"model":"tiny","prompt":"a","prompt":"bc"}'])
def test_of_two_values_of_a_field_the_last_counts(service: Any, body: bytes) -> None:
    """Row 8."""
    assert service.post("/v1/completions", body).status_code == 200
    assert service.engine.requests[-1].prompt_ids == service.state.tokenizer.encode("<bos>bc")


@pytest.mark.parametrize(
    "body",
    [
        BODY.decode().encode("utf-16"),
        BODY.decode().encode("utf-16-le"),
        BODY.decode().encode("utf-32"),
        b"\xef\xbb\xbf" + BODY,
        b'{"model":"tiny","prompt":"\\ud800"}',
        b'{"model":"tiny","prompt":"\\udc00\\ud800"}',
        b'{"model":"tiny","prompt":"\xed\xa0\x80"}',
        b'{"model":"tiny","prompt":"\xc0\x80"}',
        b'{"model":"tiny","prompt":"x","temperature":1e400}',
        b'{"model":"tiny","prompt":"x","temperature":-Infinity}',
        b'{"model":"tiny","prompt":"x","seed":' + b"9" * 5000 + b"}",
        b'{"model":"tiny","prompt":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{'model':'tiny'}",
        b'{"model":"tiny",}',
        b'{"model":"tiny"} // x',
        b'"tiny"',
        b"null",
        b"1",
    ],
)
def test_a_body_that_is_no_json_object(service: Any, error_of: Any, body: bytes) -> None:
    """Rows 5 to 7."""
    error = error_of(service.post("/v1/completions", body), 400)
    assert error["code"] in ("invalid_json", "invalid_value")
    assert "999999" not in error["message"]


def test_a_nul_is_legal_text(service: Any) -> None:
    assert service.complete("a\0b").status_code == 200


def test_pieces_of_a_byte_each(address: Address) -> None:
    """Row 9."""
    body = BODY + b" " * 20_000
    pieces = [body[at : at + 1] for at in range(len(body))]
    assert status_of(exchange(address, chunked(*pieces))) == 200


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (chunked(b"x" * 2000), (413,)),
        (post(body=b"x" * 2000), (413,)),
        (POST + JSON + b"Content-Length: 99999999999999999999\r\n\r\n", (400, 413)),
        (POST + JSON + b"Content-Length: -1\r\n\r\n", (400,)),
        (POST + JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", (400,)),
        (POST + JSON + b"Content-Length: 0x5\r\n\r\n", (400,)),
        (POST + JSON + b"Content-Length: 5, 5\r\n\r\n", (400,)),
        (POST + JSON + CLOSE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400,)),
        (POST + JSON + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", (400,)),
        (POST + JSON + CLOSE + b"Transfer-Encoding: gzip\r\n\r\n", (400,)),
        (post(b"Content-Encoding: gzip\r\n"), (415,)),
        (post(b"Content-Encoding: identity, br\r\n"), (415,)),
        (POST + b"Content-Length: 2\r\n" + CLOSE + b"\r\n{}", (415,)),
        # 12: what one server takes for the end of a request, and another does not
        (post(b"Transfer-Encoding: chunked\r\n"), (400,)),
        (post(b"Transfer-Encoding : chunked\r\n"), (400,)),
        (post(b"X: a\rb\r\n"), (400,)),
        (post(b"X\0: a\r\n"), (400,)),
        (post(b"X: a\0b\r\n"), (400,)),
        (post(b": a\r\n"), (400,)),
        (post(b"no colon\r\n"), (400,)),
    ],
)
def test_lengths_and_encodings(
    service: Any, address: Address, request_: bytes, statuses: tuple[int, ...]
) -> None:
    """Rows 9 and 12."""
    service.state.limits = Limits(body_bytes=1024)
    num_before = len(service.engine.requests)
    assert status_of(exchange(address, request_)) in statuses
    assert len(service.engine.requests) == num_before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"abc-1.2:/+=_", b"abc-1.2:/+=_"),
        (b"a<script>b", b"ascriptb"),
        (b"a b\tc", b"abc"),
        (b"x" * 10_000, b"x" * 128),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_ids_of_requests(address: Address, given: bytes, expected: bytes | None) -> None:
    """Row 12."""
    head = exchange(address, GET + CLOSE + b"X-Request-Id: " + given + b"\r\n\r\n")
    found = re.search(rb"(?i)x-request-id: (\S+)", head)
    assert found is not None
    if expected is None:
        assert re.fullmatch(rb"[0-9a-f]{32}", found[1])
    else:
        assert found[1] == expected


def test_a_body_that_waits_to_be_asked_for(address: Address) -> None:
    """Row 13."""
    with socket.create_connection(address, timeout=20) as client:
        length = b"Content-Length: %d\r\n" % len(BODY)
        client.sendall(POST + JSON + length + CLOSE + b"Expect: 100-continue\r\n\r\n")
        assert client.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        answer = b""
        while data := client.recv(2**16):
            answer += data
    assert status_of(answer) == 200


def test_an_older_client(address: Address) -> None:
    head = POST.replace(b"1.1", b"1.0").replace(b"Host: x\r\n", b"")
    assert status_of(exchange(address, post(head=head))) == 200


def test_requests_one_behind_the_other(address: Address) -> None:
    one = GET + b"\r\n"
    answer = exchange(address, one * 49 + GET + CLOSE + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 50
    whole = post().replace(CLOSE, b"")
    assert exchange(address, whole * 9 + post()).count(b"HTTP/1.1 200 OK") == 10


def test_what_follows_a_request_is_not_answered_in_its_place(
    serve: Any, served: Any, service: Any
) -> None:
    """The first request is still at work when the bytes behind it turn out to be none."""
    slow = serve(step_s=0.05)
    with served(create_app(slow.state)) as (address, _):
        answer = exchange(address, post().replace(CLOSE, b"") + b"\0\0 nonsense\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200")


HEADS = {
    "probe": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", 200),
    "health": (b"GET /health HTTP/1.1\r\nHost: x\r\n", 200),
    "no such path": (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n", 404),
    "wrong method": (b"GET /v1/completions HTTP/1.1\r\nHost: x\r\n", 405),
    "too many headers": (GET + b"".join(b"X-%d: x\r\n" % at for at in range(200)), 431),
    "too long a URL": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n", 414),
    "no such encoding": (POST + JSON + b"Transfer-Encoding: gzip\r\n", 400),
    "too large": (POST + JSON + b"Content-Length: 99999999999\r\n", 413),
    "no JSON": (POST + b"Content-Length: 0\r\n", 415),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("is_open", [True, False], ids=["application", "doorway"])
def test_every_answer_has_the_id_of_its_request(
    service: Any, served: Any, name: str, is_open: bool
) -> None:
    """Probes and refusals, on the wire and above it, also while the model is being loaded."""
    head, status = HEADS[name]
    doorway = Doorway()
    if is_open:
        doorway.open(create_app(service.state))
    first, _, rest = head.partition(b"\r\n")
    request = b"%s\r\nX-Request-Id: mine-1\r\n%s%s\r\n" % (first, rest, CLOSE)
    with served(doorway) as (address, _):
        answer = exchange(address, request)
    assert status_of(answer) in ((status,) if is_open else (200, 400, 414, 431, 503))
    # The URL comes before the header: what is wrong with it is told without.
    assert (b"mine-1" in answer.lower()) == (name != "too long a URL")
