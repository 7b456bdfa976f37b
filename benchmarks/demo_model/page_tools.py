"""The tools of the chat page and the terminal, asked about values that the model gets to know.

The model has not learned to copy any word from its context, but it learns a list of cities and the
numbers below a hundred as it learns facts. The wordings of questions are held out, the values not.
"""

from __future__ import annotations

import dataclasses
import random

from benchmarks.demo_model import values
from benchmarks.demo_model.chat_format import Chat, Message
from benchmarks.demo_model.fixed_tools import TOOL_TASKS
from benchmarks.demo_model.tool_chats import Use, draw_use, schemas
from benchmarks.demo_model.tool_task import Arguments, ToolTask

KNOWN_CITIES = values.word_list("known_cities")
MAX_NUMBER = 99
SHARE_ALL = 0.5  # of the chats offer all the tools, as the page does; the others one or two


def _city(rng: random.Random, heldout: bool) -> Arguments:
    return {"city": rng.choice(KNOWN_CITIES)}


def _pair(rng: random.Random, heldout: bool) -> Arguments:
    return {"a": rng.randint(0, MAX_NUMBER), "b": rng.randint(0, MAX_NUMBER)}


_DRAWS = {"get_weather": _city, "get_time": _city, "add": _pair}
PAGE_TASKS = tuple(
    dataclasses.replace(task, draw=_DRAWS[task.name]) for task in TOOL_TASKS if task.name in _DRAWS
)


def draw_page_tools(rng: random.Random) -> list[ToolTask]:
    """Some of the page's tools, often all of them in the page's order."""
    if rng.random() < SHARE_ALL:
        return list(PAGE_TASKS)
    return rng.sample(PAGE_TASKS, rng.choice((1, 2)))


def draw_page_use(task: ToolTask, rng: random.Random, *, heldout: bool = False) -> Use:
    """A use of one of these tools, with an output of its own form."""
    return draw_use(task, rng, heldout=heldout, share_foreign=0.0)


def draw_page_chat(rng: random.Random, *, heldout: bool = False) -> Chat:
    """One to three uses of the tools that are offered."""
    tasks = draw_page_tools(rng)
    messages: list[Message] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        messages += draw_page_use(rng.choice(tasks), rng, heldout=heldout).messages()
    return Chat(tuple(messages), tools=schemas(tasks, rng))
