"""A unit on several machines: one endpoint, the text of a single process, also after a loss."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
ASK = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import openai
def ask(number):
    with openai.OpenAI(base_url=sys.argv[1], api_key="-", max_retries=0, timeout=120) as client:
        answer = client.chat.completions.create(
            model="demo", max_tokens=int(sys.argv[2]), temperature=number % 2, seed=number,
            extra_body={"ignore_eos": True},
            messages=[{"role": "user", "content": "What does `zip` do?" * (1 + number)}],
        )
    return answer.choices[0].message.content
with ThreadPoolExecutor(6) as pool:
    print(json.dumps(list(pool.map(ask, range(6)))))
"""


def command(url: str, num_tokens: int) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", ASK, f"{url}/v1", str(num_tokens))


def ask_all(machine: Any, url: str, num_tokens: int) -> list[str]:
    answers: list[str] = json.loads(machine.run(*command(url, num_tokens)))
    return answers


@pytest.mark.distributed
@pytest.mark.parametrize(("num_nodes", "num_ranks"), [(2, 2), (4, 8)])
def test_machines_and_the_loss_of_one(
    num_nodes: int,
    num_ranks: int,
    machines: Callable[[int], list[Any]],
    unit_on: Callable[..., Any],
    tmp_path: Path,
) -> None:
    nodes = machines(num_nodes)
    first = nodes[0]
    alone = first.popen(
        *(sys.executable, "-P", "-m", "leadline.server.cli", "serve", "leadline-demo"),
        *("--served-model-name", "demo", "--port", "9000", "--num-threads", "1"),
        log=tmp_path / "alone.log",
    )
    unit = unit_on(nodes, "--data-parallel-size", str(num_ranks), "--kv-tokens", "2048")
    try:
        unit.nodes["alone"] = alone
        unit.log = lambda node: (
            tmp_path / (f"{node}.log" if node == "alone" else f"node-{node}.log")
        )
        unit.wait_until("leadline chat", "alone")
        wanted = ask_all(first, "http://127.0.0.1:9000", 60)
    finally:
        alone.send_signal(signal.SIGTERM)
    unit.wait_until("leadline chat")
    assert f"{num_ranks} data parallel x 1 tensor parallel" in unit.log(0).read_text()
    assert "node 1: ranks " in unit.log(1).read_text()
    assert ask_all(first, "http://127.0.0.1:8000", 60) == wanted

    asking = subprocess.Popen(
        ["ip", "netns", "exec", first.name, *command("http://127.0.0.1:8000", 60)],
        stdout=subprocess.PIPE,
        text=True,
    )
    unit.nodes[1].kill()  # the machine is gone in the middle of it, or before
    unit.wait_until("died and is started again")
    unit.nodes[1].wait(WAIT_S)
    unit.start(1)
    text, _ = asking.communicate(timeout=WAIT_S)
    assert json.loads(text) == wanted
    for node in range(num_nodes):
        unit.nodes[node].send_signal(signal.SIGTERM)
        assert unit.nodes[node].wait(WAIT_S) == 0
