"""Chats in which the assistant calls tools, and answers from what the tools say."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from benchmarks.demo_model.chat_format import Chat, Message, Tool
from benchmarks.demo_model.fixed_tools import TOOL_TASKS, renamed
from benchmarks.demo_model.random_tools import draw_random_result, draw_random_task
from benchmarks.demo_model.tool_task import ToolTask, output_text

SHARE_RANDOM_TOOLS = 0.5  # chats with tools made up for them, against those with the fixed ones
SHARE_FOREIGN_RESULT = 0.25  # a fixed tool returns something in another form


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a tool: the question with the call, the output and the answer."""

    question: str
    call: Message
    output: Message
    answer: str

    def messages(self) -> tuple[Message, ...]:
        """The four messages."""
        return (
            {"role": "user", "content": self.question},
            self.call,
            self.output,
            {"role": "assistant", "content": self.answer},
        )


def draw_tools(
    rng: random.Random, *, heldout: bool = False, share_random: float = SHARE_RANDOM_TOOLS
) -> list[ToolTask]:
    """Some tools to offer together, no two of the same name."""
    if rng.random() < share_random:
        num = rng.choices((1, 2, 3), (5, 3, 1))[0]
        tasks = [draw_random_task(rng, heldout) for _ in range(num)]
        if rng.random() < 0.3:
            tasks[0] = renamed(rng.choice(TOOL_TASKS), rng)
    else:
        num = rng.choices((1, 2, 3), (4, 4, 2))[0]
        tasks = [renamed(task, rng) for task in rng.sample(TOOL_TASKS, num)]
    return list({task.name: task for task in tasks}.values())


def draw_use(
    task: ToolTask,
    rng: random.Random,
    *,
    heldout: bool = False,
    share_foreign: float = SHARE_FOREIGN_RESULT,
) -> Use:
    """A random use of a tool."""
    arguments = task.draw(rng, heldout)
    foreign = rng.random() < share_foreign
    result = draw_random_result(rng, heldout) if foreign else task.result(arguments, rng)
    written = json.dumps(task.call_arguments(arguments), ensure_ascii=False)
    function = {"name": task.name, "arguments": written}
    call = {"id": f"call_{rng.randrange(16**8):08x}", "type": "function", "function": function}
    return Use(
        question=task.ask(arguments, rng, heldout),
        call={"role": "assistant", "content": None, "tool_calls": [call]},
        output={"role": "tool", "tool_call_id": call["id"], "content": output_text(result)},
        answer=task.answer(arguments, result),
    )


def schemas(tasks: list[ToolTask], rng: random.Random) -> tuple[Tool, ...]:
    """The tools as the OpenAI API has them."""
    return tuple(task.schema(rng) for task in tasks)


def draw_tool_chat(rng: random.Random, *, heldout: bool = False) -> Chat:
    """One to four uses of the tools that are offered, two of them at once now and then."""
    tasks = draw_tools(rng, heldout=heldout)
    messages: list[Message] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.12:
            messages += _two_at_once(rng.choice(tasks), rng, heldout)
        else:
            messages += draw_use(rng.choice(tasks), rng, heldout=heldout).messages()
    return Chat(tuple(messages), tools=schemas(tasks, rng))


def _two_at_once(task: ToolTask, rng: random.Random, heldout: bool) -> list[Message]:
    """Two questions in one message: two calls in one answer, or one after the other."""
    first, second = (draw_use(task, rng, heldout=heldout) for _ in range(2))
    later = rng.random() < 0.4
    joint = " Then: " if later else " And: "
    question: Message = {"role": "user", "content": first.question + joint + second.question}
    answer: Message = {"role": "assistant", "content": f"{first.answer} {second.answer}"}
    if later:
        return [question, first.call, first.output, second.call, second.output, answer]
    calls = [*first.call["tool_calls"], *second.call["tool_calls"]]
    both: Message = {"role": "assistant", "content": None, "tool_calls": calls}
    return [question, both, first.output, second.output, answer]
