"""`leadline serve --data-parallel-size 2`: one endpoint, the text of a single process."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
STALL_S = 2.0
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "x",
        "schema": {
            "type": "object",
            "properties": {"n": {"type": "array", "items": {"type": "integer"}, "maxItems": 5}},
            "required": ["n"],
            "additionalProperties": False,
        },
    },
}
SYSTEM = "You answer questions about Python, in a few words, and to the point. " * 6
QUESTIONS = ["What does `zip` do?", "What is a tuple?", "How do I sort a list?", "Why?"]
ASKED: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 2},
    {"temperature": 1.0, "seed": 4, "response_format": SCHEMA},
    {"temperature": 0.7, "seed": 5, "n": 2, "frequency_penalty": 0.5},
]
Answers = list[Any]


def ask(url: str, number: int) -> Any:
    """An answer as the official client gives it, without what differs from call to call."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=WAIT_S) as client:
        answer = client.chat.completions.create(
            model="demo",
            messages=[
                {"role": "system", "content": SYSTEM},  # longer than a page
                {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]},
            ],
            max_tokens=24,
            **ASKED[number // len(QUESTIONS) % len(ASKED)],
        )
    return [(choice.finish_reason, choice.message, choice.logprobs) for choice in answer.choices]


def ask_all(url: str) -> Answers:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda number: ask(url, number), range(16)))


def rank_pids(service: Any) -> list[int]:
    engine = service.engine_pid()
    found = Path(f"/proc/{engine}/task/{engine}/children").read_text().split()
    return [
        int(pid) for pid in found if b"rank_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=WAIT_S).text
    [line] = [line for line in text.splitlines() if line.startswith(f"leadline:{name}{{")]
    return float(line.rpartition(" ")[2])


@pytest.fixture(scope="module")
def unit(
    start_service: Callable[..., Any], model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    flags = ("--data-parallel-size", "2", "--kv-tokens", "1024", "--max-model-len", "1024")
    with start_service(log, model, *flags) as process:
        yield process


@pytest.fixture(scope="module")
def alone(service: Any) -> Answers:
    return [ask(service.url, number) for number in range(16)]


def test_start_up_tells_the_layout_and_its_reasons(unit: Any) -> None:
    text = "\n".join(unit.lines)
    assert "2 data parallel x 1 tensor parallel, whole experts" in text


def test_text_is_that_of_one_process(unit: Any, alone: Answers) -> None:
    """Drafts, cached prefixes, grammars, several choices, more requests than seats."""
    assert ask(unit.url, 0) == alone[0], "one rank is idle"
    for _ in range(2):
        assert ask_all(unit.url) == alone
    assert len(rank_pids(unit)) == 2
    assert metric(unit.url, "generation_tokens_total") > 0
    assert metric(unit.url, "prefix_cache_hits_total") > 0
    assert metric(unit.url, "spec_decode_num_accepted_tokens_total") > 0
    assert metric(unit.url, "expert_dispatch_tokens_total") > 0
    assert metric(unit.url, "expert_dispatch_bytes_total") > 0


def test_a_rank_that_is_killed(unit: Any, alone: Answers, eventually: Callable[..., None]) -> None:
    """The unit is started again, and every request gets its one answer: the same text."""
    before = rank_pids(unit)
    told = metric(unit.url, "generation_tokens_total")
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask_all, unit.url)
        eventually(lambda: metric(unit.url, "generation_tokens_total") > told, "some tokens")
        os.kill(before[1], signal.SIGKILL)
        assert answers.result() == alone
    after = rank_pids(unit)
    assert len(after) == 2
    assert not set(after) & set(before)
    assert any("rank 1 has died" in line for line in unit.errors())


def test_a_rank_that_hangs(unit: Any, alone: Answers) -> None:
    """Two seconds are no failure; where it is for good, the unit is started again."""
    before = rank_pids(unit)
    with ThreadPoolExecutor(1) as pool:
        os.kill(before[1], signal.SIGSTOP)
        answers = pool.submit(ask_all, unit.url)
        time.sleep(STALL_S)
        os.kill(before[1], signal.SIGCONT)
        assert answers.result() == alone
        assert rank_pids(unit) == before

        os.kill(before[0], signal.SIGSTOP)
        assert pool.submit(ask_all, unit.url).result() == alone
    after = rank_pids(unit)
    assert len(after) == 2
    assert not set(after) & set(before)


def test_its_end_ends_the_ranks(
    start_service: Callable[..., Any], model: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    flags = ("--tensor-parallel-size", "2", "--speculative-tokens", "0")
    with start_service(tmp_path / "stderr", model, *flags) as process:
        pids = rank_pids(process)
        assert ask(process.url, 0)
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    for pid in pids:
        eventually(lambda pid=pid: process.is_gone(pid), "the end of a rank")
    assert not [line for line in process.errors() if "ERROR" in line]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tensor-parallel-size", "3"], "3, which does not divide num_attention_heads"),
        (["--data-parallel-size", "0"], "data_parallel_size is 0; allowed: 1 to 512"),
        (["--enable-expert-parallel"], "enable_expert_parallel has no effect on a single rank"),
    ],
)
def test_impossible_layouts_are_refused_before_anything_is_loaded(
    cli: Callable[..., Any], model: str, flags: list[str], message: str
) -> None:
    ended = cli("serve", model, "--port", "0", *flags)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "reading weights" not in ended.stdout + ended.stderr
