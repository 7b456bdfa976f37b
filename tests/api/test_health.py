"""Probes: what they say of an engine, and that they ask it nothing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from leadline.engine.messages import EngineStats
from leadline.engine.progress import Progress
from leadline.server.doorway import Doorway
from leadline.server.health import EngineHealth, StallLimits


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probed(serve: Callable[..., Any], clock: Clock) -> Any:
    return serve(progress=Progress(clock))


def statuses(service: Any) -> list[int]:
    return [service.http.get(path).status_code for path in ("/livez", "/readyz", "/health")]


def test_an_idle_engine_is_healthy_however_long_it_has_idled(probed: Any, clock: Clock) -> None:
    clock.now_s += 86_400
    assert statuses(probed) == [200, 200, 200]
    assert probed.http.get("/health").json() == {"status": "ok", "progress_age_s": 86_400.0}


def test_work_without_steps_is_a_stall(probed: Any, clock: Clock) -> None:
    clock.now_s += 86_400
    probed.engine.progress.ask()
    clock.now_s += 9.9
    assert statuses(probed) == [200, 200, 200]
    clock.now_s += 0.2
    assert statuses(probed) == [200, 503, 503]
    response = probed.http.get("/health")
    body = response.json()
    assert body["status"] == "stuck"
    assert body["progress_age_s"] == pytest.approx(86_410.1)
    assert body["error"]["code"] == "engine_stuck"
    assert "10.1 s" in body["error"]["message"]
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["cache-control"] == "no-store"

    probed.engine.progress.hear(EngineStats(num_steps=1))
    assert statuses(probed) == [200, 200, 200]
    clock.now_s += 20
    probed.engine.progress.hear(EngineStats(num_steps=1))  # news, but no step
    assert statuses(probed) == [200, 503, 503]
    probed.engine.progress.answer()
    assert statuses(probed) == [200, 200, 200]


def test_a_step_that_is_predicted_to_be_long_may_be(probed: Any, clock: Clock) -> None:
    probed.engine.progress.ask()
    probed.engine.progress.hear(EngineStats(num_steps=1, predicted_step_s=6.0))
    clock.now_s += 59
    assert statuses(probed) == [200, 200, 200]
    clock.now_s += 2
    assert statuses(probed) == [200, 503, 503]


def test_what_an_engine_says_that_it_is_busy_with_has_a_limit_of_its_own(
    probed: Any, clock: Clock
) -> None:
    probed.engine.stats = EngineStats(is_paused=True, sleep_level=2, activity="waking up: 1 of 2")
    probed.engine.progress.hear(probed.engine.stats)
    clock.now_s += 899
    assert statuses(probed) == [200, 503, 200]
    body = probed.http.get("/readyz").json()
    assert body["error"]["code"] == "engine_asleep"
    assert "waking up: 1 of 2" in body["error"]["message"]
    clock.now_s += 2
    assert statuses(probed) == [200, 503, 503]
    body = probed.http.get("/health").json()
    assert body["error"]["code"] == "engine_stuck"
    assert "901.0 s while it is busy with: waking up: 1 of 2" in body["error"]["message"]


def test_an_engine_that_computes_nothing_but_nan(probed: Any) -> None:
    probed.engine.stats = EngineStats(num_corrupted_in_a_row=15)
    assert statuses(probed) == [200, 200, 200]
    probed.engine.stats = EngineStats(num_corrupted_in_a_row=16)
    assert statuses(probed) == [200, 503, 503]
    assert probed.http.get("/health").json()["error"]["code"] == "engine_corrupt"
    assert probed.chat().status_code == 200, "one that succeeds would end it"


def test_a_server_that_drains_is_not_ready_but_healthy(service: Any) -> None:
    service.state.draining = True
    assert statuses(service) == [200, 503, 200]
    assert service.http.get("/readyz").json()["error"]["code"] == "server_draining"
    assert service.http.get("/health").json()["status"] == "draining"


def test_a_dead_engine(service: Any) -> None:
    service.engine.alive = False
    assert statuses(service) == [200, 503, 503]
    for path in ("/readyz", "/health"):
        body = service.http.get(path).json()
        assert body["status"] == "dead"
        assert body["error"]["code"] == "engine_dead"


def test_limits_can_be_chosen(service: Any, clock: Clock) -> None:
    service.engine.progress = Progress(clock)
    service.engine.progress.ask()
    health = EngineHealth(service.state, StallLimits(min_s=1, step_factor=2))
    clock.now_s += 0.9
    assert health.condition().status == "ok"
    clock.now_s += 0.2
    assert health.condition().status == "stuck"


@pytest.fixture
def doorway(switchboard: Any) -> Iterator[tuple[Doorway, httpx.Client]]:
    doorway = Doorway()
    with contextlib.ExitStack() as stack:
        url = switchboard.add(doorway)
        yield doorway, stack.enter_context(httpx.Client(base_url=url, verify=False))


def test_while_the_engine_loads_only_probes_and_the_page_are_answered(
    doorway: tuple[Doorway, httpx.Client], service: Any
) -> None:
    door, http = doorway
    assert http.get("/livez").status_code == 200
    assert http.get("/").headers["content-type"].startswith("text/html")
    for method, path in (
        ("GET", "/readyz"),
        ("GET", "/health"),
        ("GET", "/dashboard.json"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/nowhere"),
    ):
        response = http.request(method, path)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "server_loading"
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["x-request-id"]
    assert http.get("/health").json()["progress_age_s"] is None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    door.open(app)
    assert http.get("/readyz").status_code == 204
