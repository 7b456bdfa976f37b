import json
import random

import pytest

from benchmarks.demo_model.tool_chats import TOOL_TASKS, draw_tool_exchange


@pytest.mark.parametrize("heldout", [False, True])
def test_calls_are_valid_and_answers_copy_the_result(heldout: bool) -> None:
    rng = random.Random(0)
    tasks = {task.name: task for task in TOOL_TASKS}
    called = set()
    for _ in range(300):
        exchange = draw_tool_exchange(rng, heldout=heldout)
        function = exchange.call["tool_calls"][0]["function"]
        schemas = {
            tool["function"]["name"]: tool["function"]["parameters"] for tool in exchange.tools
        }
        arguments = json.loads(function["arguments"])
        assert list(arguments) == schemas[function["name"]]["required"]
        result = json.loads(exchange.output["content"])
        assert exchange.answer["content"] == tasks[function["name"]].reply.format(
            **arguments, **result
        )
        assert all(str(value) in exchange.question["content"] for value in arguments.values())
        called.add(function["name"])
    assert called == set(tasks)


def test_heldout_arguments_never_occur_in_training() -> None:
    rng = random.Random(1)
    for task in TOOL_TASKS:
        if task.name == "get_exchange_rate":  # six currencies: pairs, not values, are what varies
            continue
        train = {value for _ in range(500) for value in task.draw(rng, False).values()}
        heldout = {value for _ in range(500) for value in task.draw(rng, True).values()}
        assert not train & heldout, task.name
