"""The page at `/` in a real browser, and what it is made of over plain HTTP."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.request import EngineRequest, RequestOutput
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.dashboard import page_map
from leadline.server.draft_flags import pieces_of

EVIL = (
    "<script>window.hit = 1</script> <img src=x onerror='window.hit = 1'> "
    "[bad](javascript:window.hit=1) [good](https://example.org/a)\n\n```py\nx = 1\n```\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |"
)


def ask(page: Any, text: str = "Hi") -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def test_the_page_is_open_cached_and_locked_down(service: Any) -> None:
    response = service.http.get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    etag = response.headers["etag"]
    again = service.http.get("/", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert service.http.get("/page/style.css").headers["content-encoding"] == "gzip"
    assert service.http.get("/page/../index.html").status_code == 404


def test_the_dashboard_s_data(service: Any) -> None:
    service.chat()
    data = service.http.get("/dashboard.json").json()
    assert data["health"]["status"] == "ok"
    assert data["latency"]["ttft"]["counts"][-1] == 1
    assert data["engine"]["pages"] == ".cus" * 16
    assert data["engine"]["experts"][0]["counts"] == [5, 0, 3, 2]


def test_large_pools_share_cells() -> None:
    cells, pages_per_cell = page_map(bytes([2] * 3 + [0]) * 4096)
    assert (set(cells), len(cells), pages_per_cell) == ({"u"}, 4096, 4)


@pytest.mark.parametrize("num_accepted", range(4))
def test_outputs_are_cut_where_drafts_end(num_accepted: int) -> None:
    output = RequestOutput(request_id="a", token_ids=[1, 2, 3], num_accepted=num_accepted)
    pieces = list(pieces_of(output))
    assert [id_ for piece in pieces for id_ in piece.token_ids] == [1, 2, 3]
    drafted = [id_ for piece in pieces if piece.num_accepted for id_ in piece.token_ids]
    assert drafted == [1, 2, 3][:num_accepted]


def test_draft_flags(service: Any) -> None:
    assert service.chat(return_draft_flags=True).status_code == 400
    assert '"is_draft":false' in service.chat(return_draft_flags=True, stream=True).text
    assert "is_draft" not in service.chat(stream=True).text


@pytest.mark.browser
def test_model_text_never_becomes_markup(serve: Callable[..., Any], page: Any) -> None:
    service = serve(text=lambda request: EVIL, state={"max_model_len": 2000})
    page.goto(service.url + "/")
    ask(page)
    page.get_by_role("button", name="Regenerate").wait_for()
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main script").count() == 0
    assert page.locator("main a").evaluate_all("links => links.map((l) => l.href)") == [
        "https://example.org/a"
    ]
    assert page.locator("pre code").inner_text() == "x = 1"
    assert page.locator("main [style]").count() == 0
    assert page.locator("table td").all_inner_texts() == ["1", "2"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_escape_stops_and_keeps_what_came(serve: Callable[..., Any], page: Any) -> None:
    text: Callable[[EngineRequest], str] = lambda request: "word " * 30  # noqa: E731
    service = serve(text=text, step_s=0.05)
    page.goto(service.url + "/")
    ask(page)
    page.get_by_text("word word").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Regenerate").wait_for()
    assert "stopped" in page.locator(".meta").first.inner_text()
    assert service.engine.wait_finished()
    page.reload()
    assert "word" in page.get_by_role("article", name="Answer").inner_text()


@pytest.mark.browser
def test_a_key_is_asked_for_and_then_used(service: Any, switchboard: Any, page: Any) -> None:
    url = switchboard.add(create_app(service.state, access=Access.of(api=["sk-secret"])))
    page.goto(url + "/")
    ask(page)
    page.get_by_label("API key").fill("sk-secret")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("article", name="Answer").get_by_text("Hello, world!").wait_for()
