"""The dashboard in a browser shows what the server's metrics say."""

from typing import Any

import pytest

from leadline.server.access import Access
from leadline.server.app import create_app

pytestmark = pytest.mark.browser


def panel(page: Any, name: str) -> str:
    return str(page.get_by_role("region", name=name, exact=True).inner_text())


def test_it_shows_what_the_server_says(service: Any, page: Any, until: Any) -> None:
    stats = service.engine.stats
    stats.num_running, stats.num_waiting, stats.generation_tokens = 7, 3, 12_345
    stats.num_drafts, stats.num_accepted_per_pos = 100, [80, 40]
    stats.page_usage, stats.prefix_cache_hits, stats.prefix_cache_queries = 0.5, 1, 4
    page.goto(service.url + "/#dashboard")
    page.get_by_text("tiny: ok").wait_for()
    assert "7" in panel(page, "Running")
    assert "3" in panel(page, "Waiting")
    assert "12,345 in all" in panel(page, "Output tokens/s")
    assert "2.20" in panel(page, "Acceptance length")
    assert panel(page, "Accepted by position").split("\n")[1:] == [
        "Draft 1",
        "80 %",
        "Draft 2",
        "40 %",
    ]
    assert "50 %" in panel(page, "Cache pages in use")
    assert "25 %" in panel(page, "Prefix cache")
    assert "16 used and cached" in panel(page, "Page map")
    assert "busiest expert has 2.0 times" in panel(page, "Expert load")
    widths = page.locator(".bar div").evaluate_all("bars => bars.map((bar) => bar.style.width)")
    assert widths == ["80%", "40%"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    stats.num_running = 8
    until("document.querySelectorAll('.number')[2].textContent === '8'")


def test_percentiles(service: Any, page: Any) -> None:
    page.goto(service.url + "/")
    ask = """([counts, share, before]) => import('./page/percentile.js').then(({ percentile }) =>
        percentile({ bounds_s: [1, 2, 4], counts }, share, before && { counts: before }))"""
    for counts, share, before, expected in [
        ([0, 0, 0, 0], 0.5, None, None),
        ([0, 10, 10, 10], 0.5, None, 1.5),
        ([10, 10, 20, 20], 0.9, None, 3.6),
        ([0, 0, 0, 5], 0.5, None, 4),
        ([10, 20, 20, 20], 0.5, [10, 10, 10, 10], 1.5),
    ]:
        assert page.evaluate(ask, [counts, share, before]) == pytest.approx(expected)


def test_a_key_is_asked_for(service: Any, switchboard: Any, page: Any) -> None:
    url = switchboard.add(create_app(service.state, access=Access.of(api=["sk-secret"])))
    page.goto(url + "/#dashboard")
    page.get_by_role("button", name="Enter the key").click()
    page.get_by_label("API key").fill("sk-secret")
    page.keyboard.press("Enter")
    page.get_by_text("tiny: ok").wait_for()
    assert page.get_by_role("button", name="Enter the key").count() == 0
