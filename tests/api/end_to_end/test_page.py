"""The page in a browser, over the built-in model."""

import re
from typing import Any

import httpx
import pytest


@pytest.mark.browser
def test_a_talk_and_the_dashboard_s_account_of_it(service: Any, http: Any, page: Any) -> None:
    page.goto(service.url + "/")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens of an answer").fill("40")
    page.get_by_label("Thinking").select_option("high")
    page.get_by_label("Tint text").check()
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Message").fill("What does itertools.chain do?")
    page.keyboard.press("Enter")
    page.locator(".actions").wait_for()
    assert page.locator("details .text").text_content()
    assert page.locator(".draft").count() > 0
    tokens = re.search(r"(\d+) tokens", page.locator(".meta").inner_text())
    assert tokens is not None
    assert 0 < int(tokens[1]) <= 40
    page.get_by_role("link", name="Dashboard").click()
    page.get_by_text("demo: ok").wait_for()
    for name, metric in [
        ("Output tokens/s", "generation_tokens_total"),
        ("Prompt tokens/s", "prompt_tokens_total"),
    ]:
        count = f"{counter(http, metric):,} in all"
        page.get_by_role("region", name=name).get_by_text(count, exact=True).wait_for()
    drafts = f"{counter(http, 'spec_decode_num_drafts_total'):,} draft chains since start"
    page.get_by_text(drafts).wait_for()


def counter(http: httpx.Client, name: str) -> int:
    found = re.search(rf"^leadline:{name}{{[^}}]*}} (\S+)$", http.get("/metrics").text, re.M)
    assert found is not None
    return int(float(found[1]))
