"""Markdown of the page: growing texts, and tints that fall on the right letters."""

from typing import Any

import pytest

pytestmark = pytest.mark.browser
TEXTS = [
    "# HEAD of it\n\nPlain **BOLD and `CODE`** *Em* [LINK to](https://example.org/A) end.",
    "- ONE\n- two `X` *Y*\n  more OF it\n  - deep ONE\n1. First\n2. SECOND",
    "| A | b |\n|---|---|\n| one | TWO |\n| **Three** | |",
    "> QUOTE of\n> two LINES\n\n```py\nprint(X)\n\ny = 'Z'\n```\n\nEND",
    "``` \nopen FENCE",
    "**not closed `NEITHER",
    "[bad](javascript:ALERT) and a | b",
]
SHOW = """([text, prefixes]) =>
  Promise.all([import('./page/markdown.js'), import('./page/marked.js')]).then(
  ([{ MarkdownView }, { Marked }]) => {
    const node = document.createElement('div');
    const view = new MarkdownView(node);
    const kept = new Set();
    for (const end of prefixes) {
      const part = text.slice(0, end);
      view.update(new Marked(part, [...part].map((c) => (/[A-Z]/.test(c) ? 'd' : '.')).join('')));
      kept.add(node.firstChild);
    }
    node.querySelectorAll('.code-bar').forEach((bar) => bar.remove());
    const tinted = [...node.querySelectorAll('.draft')].map((span) => span.textContent).join('');
    return { html: node.outerHTML, text: node.textContent, tinted, firsts: kept.size };
  })"""


@pytest.fixture
def show(service: Any, page: Any) -> Any:
    page.goto(service.url + "/")
    return lambda text, prefixes: page.evaluate(SHOW, [text, prefixes])


def test_tints_fall_on_their_letters_and_growth_changes_nothing(show: Any) -> None:
    for text in TEXTS:
        whole = show(text, [len(text)])
        assert whole["tinted"] == "".join(c for c in whole["text"] if c.isascii() and c.isupper())
        assert whole["tinted"]
        assert show(text, list(range(len(text) + 1)))["html"] == whole["html"]


def test_blocks_that_are_whole_keep_their_nodes(show: Any) -> None:
    text = "One.\n\n" + "two " * 20
    assert show(text, list(range(5, len(text))))["firsts"] == 1
