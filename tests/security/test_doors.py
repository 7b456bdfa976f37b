"""Without a key nothing opens but probes and the page, whatever the path is made to look like."""

import json
import re
import socket
from typing import Any

import pytest

from leadline.server.access import OPEN_PATHS
from leadline.server.openapi.operations import OPERATIONS
from leadline.server.page_files import PAGE_PATHS

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = sorted({key.partition(" ")[2].replace("{name}", "demo") for key in OPERATIONS})
LEAKS = re.compile(r"0x[0-9a-f]{6,}|/home/|/usr/|/tmp/|Traceback|File \"|site-packages|\.py\b")
BODY = b'{"model":"leadline-demo","prompt":"x","max_tokens":1}'
GUARDED = [
    b"//v1/models",
    b"/v1//models",
    b"/./v1/models",
    b"/v1/./models",
    b"/v1/x/../models",
    b"/health/../v1/models",
    b"/health/%2e%2e/v1/models",
    b"/health%2f..%2fv1%2fmodels",
    b"/health/",
    b"/health/v1/models",
    b"/health;/v1/models",
    b"/%76%31/models",
    b"/%2e/v1/models",
    b"/v1%2fmodels",
    b"/v1/models/",
    b"/v1/models%00",
    b"/v1/models?/health",
    b"/v1/models#/health",
    b"/v1/models%3f/health",
    b"/V1/MODELS",
    b"/metrics/",
    b"/Metrics",
    b"/reset_prefix_cache/",
    b"http://x/v1/models",
    b"http://x/health/../v1/models",
    b"http://health/v1/models",
    b"http://x@health/v1/models",
    b"https://x:1/v1/models?/health",
]


def exchange(address: tuple[str, int], head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to a request as it is."""
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(head + b"Connection: close\r\n\r\n" + body)
        answer = b""
        while piece := client.recv(2**16):
            answer += piece
    first, _, rest = answer.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]


def send(address: tuple[str, int], method: str, path: bytes, *lines: bytes) -> tuple[int, bytes]:
    head = b"".join(line + b"\r\n" for line in (b"Host: x", *lines))
    if method in ("POST", "PUT", "PATCH"):
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
        return exchange(address, b"%s %s HTTP/1.1\r\n%s" % (method.encode(), path, head), BODY)
    return exchange(address, b"%s %s HTTP/1.1\r\n%s" % (method.encode(), path, head))


def check_error(body: bytes) -> str:
    """The code of an error in the envelope, which tells nothing of the inside."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"} or set(error) == {"type", "message"}
    assert not LEAKS.search(body.decode())
    return str(error.get("code", error["type"]))


@pytest.mark.parametrize("path", [*PATHS, "/", "/docs", "/favicon.ico", "/v1", "/*"])
def test_every_route_by_every_method(target: Any, path: str) -> None:
    for method in METHODS:
        status, body = send(target.address, method, path.encode())
        if path in OPEN_PATHS | PAGE_PATHS:
            assert status in (200, 405, 503), (method, status)
            continue
        assert status == 401, (method, status)
        if method != "HEAD":
            assert check_error(body) in ("invalid_api_key", "authentication_error")


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_that_look_like_others(target: Any, method: str, path: bytes) -> None:
    status, body = send(target.address, method, path)
    assert status in (400, 401, 404)
    check_error(body)


@pytest.mark.parametrize("path", [b"/v1/models", b"/metrics", b"/reset_prefix_cache"])
@pytest.mark.parametrize(
    "line",
    [
        b"Host: a/health?",
        b"Host: a/health#",
        b"Host: x/livez?/..",
        b"X-Forwarded-Host: a/health?",
        b"X-Forwarded-Prefix: /health",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Original-URL: /health",
        b"X-Rewrite-URL: /health",
        b"X-HTTP-Method-Override: GET",
        b"Referer: http://x/health",
        b"Cookie: api_key=sk-api-1",
        b"Authorization: Basic c2stYXBpLTE6",
        b"Authorization: Bearer",
        b"Authorization: Bearer  ",
        b"Authorization: Bearer null",
        b"Authorization: sk-api-1",
        b"X-Api-Key: ",
    ],
)
def test_headers_that_speak_of_another_path_or_of_no_key(
    target: Any, path: bytes, line: bytes
) -> None:
    method = "POST" if path == b"/reset_prefix_cache" else "GET"
    lines = b"%s\r\n" % line if line.startswith(b"Host") else b"Host: x\r\n%s\r\n" % line
    head = b"%s %s HTTP/1.1\r\n%s" % (method.encode(), path, lines)
    status, body = exchange(target.address, head)
    assert status == 401
    check_error(body)


def test_the_key_opens_its_own_doors_only(target: Any) -> None:
    def status_of(method: str, path: bytes, key: bytes) -> int:
        return send(target.address, method, path, b"Authorization: Bearer " + key)[0]

    for key, expected in {
        b"sk-api-1": [200, 401, 401],
        b"sk-metrics-1": [401, 200, 401],
        b"sk-admin-1": [200, 200, 200],
        b"sk-none": [401, 401, 401],
    }.items():
        doors = [("GET", b"/v1/models"), ("GET", b"/metrics"), ("POST", b"/reset_prefix_cache")]
        assert [status_of(method, path, key) for method, path in doors] == expected


def test_an_absolute_uri_is_its_path(target: Any) -> None:
    """Proxies write it so; the host in it decides nothing."""
    assert send(target.address, "GET", b"http://x/health?/v1/models")[0] == 200
    key = b"Authorization: Bearer sk-api-1"
    assert send(target.address, "GET", b"http://x/v1/models", key)[0] == 200
