"""Who is let in: every path of the application, and what tries to look like another one."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.routing import Route

from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.page_files import PAGE_PATHS

API, ADMIN, METRICS = "sk-api-1", "sk-admin-1", "sk-metrics-1"
Http = Callable[..., httpx.Client]


@pytest.fixture
def guarded(service: Any, switchboard: Any) -> Iterator[Http]:
    """A client of a server with keys; those that the server has are given."""
    with contextlib.ExitStack() as stack:

        def start(**keys: list[str]) -> httpx.Client:
            url = switchboard.add(create_app(service.state, access=Access.of(**keys)))
            return stack.enter_context(httpx.Client(base_url=url, verify=False))

        yield start


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def is_let_in(http: httpx.Client, path: str, key: str, method: str = "GET") -> bool:
    return http.request(method, path, headers=bearer(key) if key else {}).status_code != 401


def test_every_route_but_the_probes_needs_a_key(service: Any, guarded: Http) -> None:
    http = guarded(api=[API], metrics=[METRICS])
    routes = [route for route in create_app(service.state).routes if isinstance(route, Route)]
    open_paths = set()
    for route in routes:
        path = route.path.replace("{name:path}", "tiny")
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            if http.request(method, path).status_code != 401:
                open_paths.add(path)
            else:
                assert not is_let_in(http, path, "sk-api-2", method)
    assert open_paths == {"/livez", "/readyz", "/health"} | PAGE_PATHS
    assert len(routes) > 8


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "//v1/models",
        "/v1//models",
        "/v1/./models",
        "/v1/models/",
        "/%76%31/models",
        "/v1%2fmodels",
        "/health/../v1/models",
        "/health/",
        "/healthz",
        "/health/v1/models",
        "/livez%00",
        "/HEALTH",
        "/v1/models?/health",
        "/v1/models;/health",
    ],
)
def test_no_path_goes_around_the_key(guarded: Http, path: str) -> None:
    http = guarded(api=[API])
    response = http.get(path)
    assert response.status_code in (401, 404)
    assert "data" not in response.json()


@pytest.mark.parametrize("path", ["/reset_prefix_cache%0A", "/reset_prefix_cache%0D"])
def test_a_line_end_does_not_make_another_path(guarded: Http, path: str, service: Any) -> None:
    http = guarded(api=[API], admin=[ADMIN])
    service.engine.num_cached_pages = 5
    assert http.post(path, headers=bearer(API)).status_code == 404
    assert service.engine.num_cached_pages == 5


def test_a_request_without_the_right_key_is_told_how(guarded: Http) -> None:
    http = guarded(api=[API, "sk-api-other"])
    for headers in (
        {},
        {"authorization": "Bearer"},
        bearer(API + "x"),
        bearer(API[:-1]),
        bearer(API.upper()),
        {"authorization": f"Basic {API}"},
        {"authorization": API},
        {"x-api-key": "sk-wrong"},
        {b"authorization": b"Bearer \xff\xfe"},
    ):
        response = http.post("/v1/completions", json={"prompt": "x"}, headers=headers)
        assert response.status_code == 401, headers
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"]
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert "sk-" not in response.text


@pytest.mark.parametrize("key", [API, "sk-api-other"])
def test_keys_may_come_in_either_header(guarded: Http, key: str) -> None:
    http = guarded(api=[API, "sk-api-other"])
    for headers in (bearer(key), {"authorization": f"bearer  {key}"}, {"x-api-key": key}):
        assert http.get("/v1/models", headers=headers).status_code == 200


def test_the_official_client_sends_its_key(service: Any, guarded: Http) -> None:
    import openai

    http = guarded(api=[API])
    client = service.client.with_options(base_url=f"{http.base_url}v1")
    assert client.with_options(api_key=API).models.list().data
    with pytest.raises(openai.AuthenticationError) as info:
        client.with_options(api_key="sk-wrong").models.list()
    assert info.value.code == "invalid_api_key"


def test_an_admin_key_opens_everything_and_guards_what_acts_on_the_server(guarded: Http) -> None:
    http = guarded(api=[API], admin=[ADMIN], metrics=[METRICS])
    opened = {
        key: [
            is_let_in(http, "/v1/models", key),
            is_let_in(http, "/reset_prefix_cache", key, "POST"),
            is_let_in(http, "/metrics", key),
        ]
        for key in (API, ADMIN, METRICS, "")
    }
    assert opened == {
        API: [True, False, False],
        ADMIN: [True, True, True],
        METRICS: [False, False, True],
        "": [False, False, False],
    }


def test_without_an_admin_key_the_api_s_is_asked_for(guarded: Http) -> None:
    http = guarded(api=[API])
    assert not is_let_in(http, "/reset_prefix_cache", "", "POST")
    assert is_let_in(http, "/reset_prefix_cache", API, "POST")
    assert is_let_in(http, "/metrics", "")


def test_without_keys_everybody_is_let_in(guarded: Http) -> None:
    http = guarded()
    assert http.get("/v1/models").status_code == 200
    assert http.get("/v1/models", headers=bearer("anything")).status_code == 200
    assert http.get("/v1/models", headers={"authorization": "Bearer"}).status_code == 200
    assert http.post("/reset_prefix_cache").status_code == 200


@pytest.mark.parametrize("value", [b"Bearer ", b"Bearer   ", b"", b"Bearer \x00"])
def test_a_blank_key_is_none(value: bytes) -> None:
    headers = Headers(raw=[(b"authorization", value), (b"x-api-key", b" ")])
    assert Access().refusal("/v1/models", headers) is None
    assert Access.of(api=[API]).refusal("/v1/models", headers) is not None


def test_keys_are_not_kept() -> None:
    access = Access.of(api=[API], admin=[ADMIN], metrics=[METRICS])
    assert "sk-" not in repr(access)
    assert API.encode() not in access.api
