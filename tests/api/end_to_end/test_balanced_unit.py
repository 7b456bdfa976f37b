"""A unit whose experts move while it answers, and whose requests go where their prefix is."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
QUESTIONS = ["What does `zip` do?", "What is a tuple?", "How do I sort a list?"]


def ask(url: str, question: str, **options: Any) -> Any:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=WAIT_S) as client:
        return client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": question}],
            max_tokens=40,
            temperature=0.0,
            **options,
        )


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
    balance = ("--expert-balance-steps", "64", "--num-redundant-experts", "2")
    with start_service(log, model, *flags, *balance) as process:
        yield process


def test_text_before_during_and_after_experts_move(unit: Any, service: Any) -> None:
    want = [ask(service.url, question).choices[0].message for question in QUESTIONS]
    for _ in range(12):
        got = [ask(unit.url, question).choices[0].message for question in QUESTIONS]
        assert got == want
    assert metric(unit.url, "expert_balance_windows_total") > 0
    assert metric(unit.url, "expert_layers_moved_total") > 0
    assert metric(unit.url, "expert_moved_bytes_total") > 0
    assert metric(unit.url, "expert_layers_refused_total") == 0
    assert 0 < metric(unit.url, "expert_balancedness") <= 1
    predicted = metric(unit.url, "expert_balancedness_predicted")
    assert metric(unit.url, "expert_balancedness") <= predicted + 1e-6


def test_a_session_is_answered_where_its_prefix_is(unit: Any) -> None:
    question = "Tell me of lists. " * 12
    first = ask(unit.url, question, extra_headers={"X-Session-ID": "s"})
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    for _ in range(4):
        again = ask(unit.url, question, extra_headers={"X-Session-ID": "s"})
        assert again.usage.prompt_tokens_details.cached_tokens > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-redundant-experts", "2"], "num_redundant_experts has no effect where"),
        (["--expert-balance-steps", "10"], "expert_balance_steps has no effect where"),
        (["--data-parallel-routing", "round-robin"], "data_parallel_routing has no effect with"),
        (
            ["--data-parallel-size", "2", "--num-redundant-experts", "1"],
            "cannot be spread evenly over 2 ranks",
        ),
    ],
)
def test_settings_without_effect_are_refused(
    cli: Callable[..., Any], model: str, flags: list[str], message: str
) -> None:
    ended = cli("serve", model, "--port", "0", *flags)
    assert ended.returncode == 1
    assert message in ended.stderr
