"""Nothing that axe finds at fault: names, roles, contrast, in the light and in the dark."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser
TEXT = (
    "# Head\n\nSome `code` and **more**.\n\n- a\n- [b](https://example.org)\n\n```py\nx\n```\n\n> q"
)


def faults(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    results = axe.run(page).response
    assert results["passes"], "nothing was checked"
    return [
        f"{fault['id']}: {fault['nodes'][0]['html']}\n{fault['nodes'][0]['failureSummary']}"
        for fault in results["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(
    serve: Callable[..., Any], thinking_tokenizer: Any, page: Any, scheme: str, width: int
) -> None:
    state = {"tokenizer": thinking_tokenizer, "max_model_len": 999}
    service = serve(
        text=lambda request: f"<think>Hm.</think>{TEXT}", tokenizer=thinking_tokenizer, state=state
    )
    service.engine.stats.num_drafts, service.engine.stats.num_accepted_per_pos = 10, [8, 4]
    page.set_viewport_size({"width": width, "height": 740})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(service.url + "/")
    assert faults(page) == []
    page.get_by_label("Message").fill("Hi")
    page.keyboard.press("Enter")
    page.locator(".actions").wait_for()
    page.locator("summary").click()
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Settings").click()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Dashboard").click()
    page.get_by_text("tiny: ok").wait_for()
    assert faults(page) == []
