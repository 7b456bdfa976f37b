"""lm-evaluation-harness, on tasks of its own beside this file: nothing is downloaded."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.clients
TASKS = Path(__file__).parent / "tasks"
NUM_QUESTIONS = 3


@pytest.fixture
def evaluate(
    environment: Callable[[str], Path], run: Any, servers: dict[str, str], tmp_path: Path
) -> Callable[..., Any]:
    """Runs tasks against an endpoint; gives the results, and the samples by task."""

    def start(model: str, path: str, tasks: str, *more: str) -> Any:
        arguments = f"base_url={servers['model']}{path},model=demo,num_concurrent=2"
        run(
            *(environment("lm-eval") / "bin" / "lm_eval", "run", "--model", model),
            *("--model_args", arguments, "--tasks", tasks, "--include_path", TASKS),
            *("--output_path", tmp_path / "out", "--log_samples", *more),
            cwd=TASKS,  # the data files of tasks are looked for there
            env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        )
        (path_,) = tmp_path.rglob("results_*.json")
        samples = {
            task: [json.loads(line) for line in found.read_text().splitlines()]
            for task in tasks.split(",")
            for found in tmp_path.rglob(f"samples_{task}_*.jsonl")
        }
        assert {task: len(lines) for task, lines in samples.items()} == dict.fromkeys(
            tasks.split(","), NUM_QUESTIONS
        )
        return json.loads(path_.read_text())["results"], samples

    return start


def test_local_completions(evaluate: Any) -> None:
    """Log-probabilities of given answers and of whole texts, and answers up to a stop string."""
    tasks = "modules_choice,modules_perplexity,modules_say"
    results, samples = evaluate("local-completions", "/v1/completions", tasks)
    assert 0 <= results["modules_choice"]["acc,none"] <= 1
    for sample in samples["modules_choice"]:
        for ((logprob, is_greedy),) in sample["resps"]:
            assert float(logprob) < 0
            assert is_greedy in ("True", "False")
    perplexity = results["modules_perplexity"]["word_perplexity,none"]
    assert math.isfinite(perplexity)
    assert perplexity > 1
    for sample in samples["modules_say"]:
        ((answer,),) = sample["resps"]
        assert "\n" not in answer


def test_local_chat_completions(evaluate: Any) -> None:
    _, samples = evaluate(
        *("local-chat-completions", "/v1/chat/completions", "modules_say"),
        "--apply_chat_template",
    )
    for sample in samples["modules_say"]:
        ((answer,),) = sample["resps"]
        assert answer
