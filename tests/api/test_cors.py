"""What a browser is told of pages of other origins."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from leadline.engine.errors import ConfigError
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.config import ServerConfig
from leadline.server.cors import with_cors

PAGE, OTHER = "https://page.example", "https://other.example"
KEY = "sk-1"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
Http = Callable[..., httpx.Client]


@pytest.fixture
def open_to(service: Any, switchboard: Any) -> Iterator[Http]:
    """A client of a server with a key that pages of these origins may call."""
    with contextlib.ExitStack() as stack:

        def start(*origins: str) -> httpx.Client:
            app = create_app(service.state, access=Access.of(api=[KEY]))
            url = switchboard.add(with_cors(app, origins))
            return stack.enter_context(httpx.Client(base_url=url, verify=False))

        yield start


def cors_headers(response: httpx.Response) -> dict[str, str]:
    return {
        name: value
        for name, value in response.headers.items()
        if name.startswith("access-control-")
    }


def test_without_origins_no_page_is_let_in(open_to: Http) -> None:
    http = open_to()
    preflight = http.options("/v1/models", headers={"origin": PAGE} | PREFLIGHT)
    answer = http.get("/v1/models", headers={"origin": PAGE, "authorization": f"Bearer {KEY}"})
    assert preflight.status_code == 401
    assert answer.status_code == 200
    assert cors_headers(preflight) == cors_headers(answer) == {}


def test_a_preflight_needs_no_key(open_to: Http) -> None:
    http = open_to(OTHER, PAGE)
    response = http.options("/v1/chat/completions", headers={"origin": PAGE} | PREFLIGHT)
    assert response.status_code == 200
    headers = cors_headers(response)
    assert headers["access-control-allow-origin"] == PAGE
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert "origin" in response.headers["vary"].lower()


@pytest.mark.parametrize("origin", ["https://evil.example", f"{PAGE}.evil.example", "null", ""])
def test_other_pages_are_not_let_in(open_to: Http, origin: str) -> None:
    http = open_to(PAGE)
    preflight = http.options("/v1/models", headers={"origin": origin} | PREFLIGHT)
    answer = http.get("/v1/models", headers={"origin": origin, "authorization": f"Bearer {KEY}"})
    for response in (preflight, answer):
        assert "access-control-allow-origin" not in response.headers


def test_refusals_can_be_read_too(open_to: Http) -> None:
    http = open_to(PAGE)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    key = {"authorization": f"Bearer {KEY}"}
    responses = [
        http.get("/v1/models", headers={"origin": PAGE}),
        http.get("/nowhere", headers={"origin": PAGE} | key),
        http.post("/v1/chat/completions", json={}, headers={"origin": PAGE} | key),
        http.post("/v1/chat/completions", json=body, headers={"origin": PAGE} | key),
    ]
    assert [response.status_code for response in responses] == [401, 404, 400, 200]
    for response in responses:
        headers = cors_headers(response)
        assert headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in headers["access-control-expose-headers"]
        assert "origin" in response.headers["vary"].lower()


@pytest.mark.parametrize("origins", [("*",), (PAGE, "*"), (PAGE,)])
def test_cookies_are_never_asked_for(open_to: Http, origins: tuple[str, ...]) -> None:
    http = open_to(*origins)
    preflight = http.options("/v1/models", headers={"origin": PAGE} | PREFLIGHT)
    answer = http.get("/v1/models", headers={"origin": PAGE, "cookie": "a=b"})
    for response in (preflight, answer):
        expected = "*" if "*" in origins else PAGE
        assert response.headers["access-control-allow-origin"] == expected
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", ["*", PAGE, "http://localhost:3000", "http://[::1]:80"])
def test_origins_that_may_be_given(origin: str) -> None:
    ServerConfig(cors_origin=(origin,)).check()


@pytest.mark.parametrize(
    "origin",
    ["", "page.example", f"{PAGE}/", f"{PAGE}/a", "https://*.example", "HTTPS://A", "null"],
)
def test_origins_that_no_browser_sends(origin: str) -> None:
    with pytest.raises(ConfigError, match="cors_origin is"):
        ServerConfig(cors_origin=(origin,)).check()
