"""The chat page's tools, and their use with values that training repeats."""

import json
import random

import jsonschema

from benchmarks.demo_model.chats import Corpus
from benchmarks.demo_model.page_tools import KNOWN_CITIES, MAX_NUMBER, PAGE_TASKS, draw_page_chat
from benchmarks.demo_model.shares import Shares
from leadline.server.demo_tools import TOOLS, answer_call


def test_they_are_those_of_the_terminal() -> None:
    rng = random.Random(0)
    schemas = [task.schema(rng) for task in PAGE_TASKS]
    for schema, tool in zip(schemas, TOOLS, strict=True):
        function = schema["function"]
        assert function["name"] == tool["function"]["name"]
        assert function["description"] == tool["function"]["description"]
        parameters = function["parameters"]["properties"]
        assert parameters == tool["function"]["parameters"]["properties"]


def test_arguments_are_known_values() -> None:
    rng = random.Random(1)
    names = set()
    for _ in range(200):
        chat = draw_page_chat(rng)
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}
        for message in chat.messages:
            for call in message.get("tool_calls") or ():
                name = call["function"]["name"]
                arguments = json.loads(call["function"]["arguments"])
                jsonschema.validate(arguments, offered[name])
                for value in arguments.values():
                    assert value in KNOWN_CITIES or 0 <= value <= MAX_NUMBER
                names.add(name)
    assert names == {task.name for task in PAGE_TASKS}


def test_the_terminal_knows_the_time_of_every_city() -> None:
    for city in KNOWN_CITIES:
        assert "time" in json.loads(answer_call("get_time", json.dumps({"city": city}))), city


def test_a_share_of_chats_uses_nothing_else(corpus: Corpus) -> None:
    shares = Shares(tools=0.0, page_tools=0.5, copying=0.0, thinking=0.3)
    chats = corpus.iter_training_chats(random.Random(2), shares=shares)
    names = set()
    for _, chat in zip(range(300), chats, strict=False):
        names |= {tool["function"]["name"] for tool in chat.tools}
    assert names == {task.name for task in PAGE_TASKS}
