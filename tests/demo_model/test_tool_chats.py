import json
import random
import re
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from benchmarks.demo_model import values
from benchmarks.demo_model.chat_format import Chat
from benchmarks.demo_model.copying import draw_copy_chat
from benchmarks.demo_model.fixed_tools import TOOL_TASKS, renamed
from benchmarks.demo_model.random_tools import draw_random_task
from benchmarks.demo_model.tool_chats import draw_tool_chat, draw_use
from benchmarks.demo_model.tool_task import output_text, plain_answer


def called(message: Any) -> list[tuple[str, dict[str, Any]]]:
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def chats(num: int, heldout: bool) -> list[Chat]:
    rng = random.Random(0)
    return [draw_tool_chat(rng, heldout=heldout) for _ in range(num)]


@pytest.mark.parametrize("heldout", [False, True])
def test_calls_fit_the_schemas_and_copy_from_the_question(heldout: bool) -> None:
    seen = set()
    for chat in chats(300, heldout):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}
        question = ""
        for message in chat.messages:
            question = message["content"] if message["role"] == "user" else question
            for name, arguments in called(message):
                jsonschema.validate(arguments, offered[name])
                assert list(arguments) == list(offered[name]["properties"])
                assert all(str(value) in question for value in arguments.values())
                seen.add(name)
    assert {task.name for task in TOOL_TASKS} < seen


def test_fixed_tools_come_under_other_names_too() -> None:
    rng = random.Random(4)
    names, keys = set(), set()
    for _ in range(200):
        task = renamed(TOOL_TASKS[0], rng)
        use = draw_use(task, rng)
        [(name, arguments)] = called(use.call)
        jsonschema.validate(arguments, task.schema(rng)["function"]["parameters"])
        assert all(value in use.question for value in arguments.values())
        names.add(name)
        keys |= set(arguments)
    assert {"get_weather", "get_current_weather"} < names
    assert {"city", "location"} < keys


def test_each_call_is_answered_by_one_output() -> None:
    numbers = set()
    for chat in chats(300, heldout=False):
        pending = 0
        for message, following in pairwise(chat.messages):
            pending += len(called(message)) - (message["role"] == "tool")
            numbers.add(pending)
            assert (following["role"] == "tool") == (pending > 0)
        assert chat.messages[-1]["role"] == "assistant"
    assert numbers == {0, 1, 2}


@pytest.mark.parametrize("heldout", [False, True])
def test_answers_hold_every_value_of_the_output(heldout: bool) -> None:
    """Every value but the time zone that comes with a time."""
    rng = random.Random(2)
    for _ in range(300):
        task = rng.choice((*TOOL_TASKS, draw_random_task(rng, heldout)))
        use = draw_use(task, rng, heldout=heldout)
        content = use.output["content"]
        parsed = json.loads(content) if content.startswith(("{", "[")) else content
        if isinstance(parsed, dict):
            parsed.pop("zone", None)
        held = parsed.values() if isinstance(parsed, dict) else parsed
        for value in [held] if isinstance(held, str) else held:
            assert str(value) in use.answer


@pytest.mark.parametrize(
    ("result", "content", "answer"),
    [
        ({"sky": "grey", "degrees": 3}, '{"sky": "grey", "degrees": 3}', "The sky is grey and the "
         "degrees is 3."),
        (["a", "b", "c"], '["a", "b", "c"]', "The results are a, b and c."),
        ({"error": "no such city"}, '{"error": "no such city"}', "The tool failed: no such city."),
        ("22 degrees and sunny", "22 degrees and sunny", "The tool says: 22 degrees and sunny"),
        (42, "42", "The result is 42."),
    ],
)  # fmt: skip
def test_outputs_of_every_form(result: Any, content: str, answer: str) -> None:
    assert (output_text(result), plain_answer(result)) == (content, answer)


def test_a_fixed_tool_with_a_foreign_output_is_answered_plainly() -> None:
    weather = TOOL_TASKS[0]
    arguments = {"city": "Rome"}
    known = {"sky": "sunny", "degrees": 20}
    assert weather.answer(arguments, known) == "It is sunny in Rome, at 20 degrees."
    assert weather.answer(arguments, {"rain": "none"}) == "The rain is none."


def words_of(texts: list[str]) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


@pytest.mark.parametrize("draw", [values.word, values.name, values.city, values.phrase])
def test_held_out_words_never_occur_in_training(draw: Any) -> None:
    rng = random.Random(1)
    train = words_of([draw(rng, False) for _ in range(2000)])
    heldout = words_of([draw(rng, True) for _ in range(2000)])
    joints = {"new", "san", "port", "los", "saint", "el"}  # of made-up cities of two words
    assert train
    assert heldout
    assert not train & heldout - joints


def test_held_out_numbers_never_occur_in_training() -> None:
    rng = random.Random(1)
    train = {values.integer(rng, False) for _ in range(5000)}
    assert not train & {values.integer(rng, True) for _ in range(5000)}


@pytest.mark.parametrize("heldout", [False, True])
def test_drills_ask_for_what_is_there(heldout: bool) -> None:
    rng = random.Random(3)
    for _ in range(300):
        told = ""
        for message in draw_copy_chat(rng, heldout=heldout).messages:
            if message["role"] == "user":
                told += message["content"]
            elif message["content"].startswith("{"):
                assert all(str(value) in told for value in json.loads(message["content"]).values())
            else:
                value = re.sub(r"^The \w+ is |\.$", "", message["content"])
                assert value in told.replace('\\"', '"')
