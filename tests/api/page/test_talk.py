"""A talk with the page, over a scripted engine: what streams, what fails, and what is kept."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from leadline.engine.request import FinishReason
from leadline.loader.chat_template import ChatTemplate
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark

pytestmark = pytest.mark.browser
SETTINGS = "localStorage.setItem('leadline.settings', JSON.stringify({}))"
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.role }}: "
    "{{ m.content or '' }}|{% endfor %}{% if thinking %}<think>{% endif %}"
)


class Hold:
    """Lets the engine take as many steps as the test says."""

    def __init__(self) -> None:
        self._steps = threading.Semaphore(0)

    def release(self, steps: int = 100_000) -> None:
        self._steps.release(steps)

    async def wait(self) -> None:
        await asyncio.to_thread(self._steps.acquire, timeout=10)


@pytest.fixture
def hold() -> Iterator[Hold]:
    hold = Hold()
    yield hold
    hold.release()


def visit(page: Any, service: Any, **settings: Any) -> None:
    page.add_init_script(SETTINGS.replace("{}", json.dumps(settings)))
    page.goto(service.url + "/")


def ask(page: Any, text: str = "Hi") -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def is_over(page: Any) -> None:
    page.locator(".actions").wait_for()


def test_thinking_folds_and_stays_as_the_reader_leaves_it(
    serve: Callable[..., Any], thinking_tokenizer: Any, page: Any, hold: Hold, until: Any
) -> None:
    says = "Hm hm.</think>Yes. And no."
    state = {"tokenizer": thinking_tokenizer}
    service = serve(text=lambda request: says, tokenizer=thinking_tokenizer, state=state, gate=hold)
    visit(page, service, effort="high")
    ask(page)
    hold.release(4)
    details, thought = page.locator("details"), page.locator("details .text")
    thought.get_by_text("Hm").wait_for()
    assert page.get_by_role("status").inner_text() == "Thinking"
    assert details.get_attribute("open") is not None
    hold.release(8)
    page.locator(".content").get_by_text("Yes.").wait_for()
    until("!document.querySelector('details').open")
    page.locator("summary").click()
    hold.release()
    is_over(page)
    assert details.get_attribute("open") is not None, "the reader has opened it"
    assert "2 words" in page.locator("summary").inner_text()
    assert thought.inner_text() == "Hm hm."


def test_a_tool_is_called_and_its_answer_goes_back(
    serve: Callable[..., Any], tokenizer_of: Callable[..., Any], page: Any
) -> None:
    marks = DEEPSEEK_TEXTS
    tokenizer = tokenizer_of(*marks.values())
    calls = "".join(
        f"{marks[Mark.CALL_BEGIN]}{name}{marks[Mark.NAME_END]}{arguments}{marks[Mark.CALL_END]}"
        for name, arguments in [
            ("get_weather", '{"city": "Rome"}'),
            ("get_time", '{"city": "Atlantis"}'),
            ("add", '{"a": 2, "b": 3}'),
        ]
    )
    calls = f"{marks[Mark.CALLS_BEGIN]}{calls}{marks[Mark.CALLS_END]}"

    def says(request: Any) -> str:
        return "It is 5." if "tool: " in tokenizer.decode(request.prompt_ids) else calls

    state = {"tokenizer": tokenizer, "template": ChatTemplate(TEMPLATE, {}), "max_model_len": 9000}
    service = serve(text=says, tokenizer=tokenizer, state=state, chunk=20)
    visit(page, service, tools=True)
    ask(page)
    is_over(page)
    assert "It is 5." in page.get_by_role("article", name="Answer").last.inner_text()
    weather = page.get_by_label("Answer of get_weather")
    assert "made-up data" in weather.inner_text()
    time = page.get_by_label("Answer of get_time").inner_text()
    assert "the time zone of Atlantis is not known" in time
    assert "made-up" not in time
    assert '{"sum":5}' in page.get_by_label("Answer of add").inner_text()
    prompt = tokenizer.decode(service.engine.requests[-1].prompt_ids)
    assert 'tool: {"sum":5}|' in prompt


def test_the_time_is_that_of_the_city(service: Any, page: Any) -> None:
    visit(page, service)
    ask_tool = """city => import('./page/tools.js').then(({ answerCall }) =>
        answerCall({ function: { name: 'get_time', arguments: JSON.stringify({ city }) } }))"""
    assert page.evaluate(ask_tool, "New York")["zone"] == "America/New_York"
    assert page.evaluate(ask_tool, "Tokyo, Japan")["zone"] == "Asia/Tokyo"


def test_a_failed_answer_can_be_tried_again(serve: Callable[..., Any], page: Any) -> None:
    service = serve(failure=FinishReason.ERROR)
    visit(page, service)
    ask(page)
    page.get_by_role("button", name="Try again").wait_for()
    assert page.get_by_role("status").inner_text().startswith("Failed: ")
    service.engine.failure = None
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    assert page.locator(".card.error").count() == 0
    assert page.get_by_label("You").count() == 1


def test_an_error_event_is_shown_in_its_words(service: Any, page: Any) -> None:
    body = f"data: {json.dumps({'error': {'message': 'The logits are not finite.'}})}\n\n"
    visit(page, service)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body))
    ask(page)
    page.get_by_role("button", name="Try again").wait_for()
    assert "The logits are not finite." in page.locator(".card.error").inner_text()


def test_a_cut_stream_is_told_from_a_whole_one(service: Any, page: Any) -> None:
    chunk = {"choices": [{"delta": {"content": "Half an ans"}, "finish_reason": None}]}
    body = f"data: {json.dumps(chunk)}\n\n"
    visit(page, service)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body))
    ask(page)
    page.get_by_text("The connection ended before the answer was whole.").first.wait_for()
    assert "Half an ans" in page.locator(".content").inner_text()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    page.locator(".content").get_by_text("Hello, world!").wait_for()


def test_a_server_that_is_gone_is_told_in_words(service: Any, page: Any) -> None:
    visit(page, service, model="tiny")
    page.route("**/v1/**", lambda route: route.abort())
    ask(page)
    page.get_by_text("The server cannot be reached.").first.wait_for()


def test_settings_are_kept_and_sent(service: Any, page: Any) -> None:
    page.goto(service.url + "/")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Save").click()
    page.reload()
    page.get_by_role("button", name="Settings").click()
    assert page.get_by_label("Temperature").input_value() == "0.25"
    page.keyboard.press("Escape")
    ask(page)
    is_over(page)
    (request,) = service.engine.requests
    assert request.params.temperature == 0.25
    assert "system: Be brief." in service.engine.tokenizer.decode(request.prompt_ids)


def background(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_theme_follows_the_system_until_one_is_chosen(service: Any, page: Any) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(service.url + "/")
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    page.get_by_role("button", name="Theme: system").click()
    assert background(page) == light
    page.reload()
    assert background(page) == light
    page.get_by_role("button", name="Theme: light").click()
    page.get_by_role("button", name="Theme: dark").click()
    assert background(page) == dark
    page.emulate_media(color_scheme="light")
    assert background(page) == light


def test_all_of_it_by_keyboard(service: Any, page: Any) -> None:
    page.goto(service.url + "/")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    is_over(page)
    assert page.get_by_label("You").inner_text() == "One\nTwo"
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent"))
    buttons = {"Theme: system", "Settings", "Dashboard", "New chat", "Copy", "Regenerate", "Send"}
    assert buttons <= reached
    page.get_by_role("button", name="Edit last message").focus()
    page.keyboard.press("Enter")
    assert page.get_by_label("Message").input_value() == "One\nTwo"
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "model"
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_end_stays_in_view_only_if_the_reader_is_there(
    serve: Callable[..., Any], page: Any, hold: Hold, until: Any
) -> None:
    service = serve(text=lambda request: "line\n\n" * 60, gate=hold, state={"max_model_len": 999})
    visit(page, service)
    ask(page)
    hold.release(180)
    at_end = "innerHeight + scrollY >= document.documentElement.scrollHeight - 2"
    until(f"document.querySelectorAll('.content p').length == 30 && {at_end}")
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="To the newest").wait_for()
    hold.release()
    is_over(page)
    assert page.evaluate("scrollY") == 0
    page.get_by_role("button", name="To the newest").click()
    until(at_end)


def test_sentences_are_spoken_as_they_come(
    serve: Callable[..., Any], page: Any, hold: Hold
) -> None:
    service = serve(text=lambda request: "One is *first*. Two is", gate=hold)
    visit(page, service)
    ask(page)
    hold.release(19)
    spoken = page.get_by_role("log", name="Answer as it comes").locator("p")
    spoken.first.wait_for(state="attached")
    assert spoken.all_text_contents() == ["One is first."]
    assert page.get_by_role("status").inner_text() == "Answering"
    hold.release()
    is_over(page)
    assert spoken.all_text_contents() == ["One is first.", "Two is"]
    assert page.get_by_role("status").inner_text() == "Done: 23 tokens"


def test_another_chat_leaves_the_first_one_s_answer(
    serve: Callable[..., Any], page: Any, hold: Hold
) -> None:
    service = serve(gate=hold)
    visit(page, service)
    ask(page, "First")
    hold.release(5)
    page.locator(".content").get_by_text("Hello").wait_for()
    page.get_by_role("button", name="New chat").click()
    assert page.get_by_role("article").count() == 0
    assert service.engine.wait_finished() == [FinishReason.ABORT]
    hold.release()
    ask(page, "Second")
    is_over(page)
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="First").click()
    page.get_by_text("stopped").wait_for()
    assert page.get_by_label("You").inner_text() == "First"
