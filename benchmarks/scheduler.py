"""How long the scheduler alone takes: microseconds a step, by running requests and drafts.

    python benchmarks/scheduler.py [--steps 200] [--json scheduler.json]

Every request decodes with a context of about 500 tokens. `plan` is the time from one step's end to
the next one's beginning where a step is planned only after the one before it; planned ahead, it is
hidden behind the executor's work, and only `update` stands between two steps that wait for nothing.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.executor.base import Capacity
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import ModelOutput, RowOutput, SchedulerOutput

PROMPT_TOKENS = 500
PAGE_SIZE = 64


def decoding_scheduler(num_running: int, num_steps: int, num_drafts: int) -> Scheduler:
    """A scheduler with `num_running` admitted requests that go on for `num_steps` steps."""
    max_tokens = 4 * num_steps + 10
    pages_each = -(-(PROMPT_TOKENS + max_tokens) // PAGE_SIZE)
    capacity = Capacity(
        num_pages=pages_each * num_running,
        page_size=PAGE_SIZE,
        max_model_len=PROMPT_TOKENS + max_tokens,
        max_num_seqs=num_running,
    )
    scheduler = Scheduler(
        capacity,
        max_num_batched_tokens=PROMPT_TOKENS * num_running,
        draft_policy=DraftPolicy(num_drafts),
    )
    for i in range(num_running):
        params = SamplingParams(seed=i, max_tokens=max_tokens, eos_token_ids=(1,))
        scheduler.add(
            EngineRequest(
                request_id=f"request-{i}", prompt_ids=[i + 2] * PROMPT_TOKENS, params=params
            )
        )
    return scheduler


def result_of(plan: SchedulerOutput) -> ModelOutput:
    """Every draft accepted, one more token, and new drafts."""
    rows = [
        RowOutput([7] * (1 + row.num_verify), row.num_verify, row.num_verify, row.num_drafts)
        for row in plan.rows
    ]
    return ModelOutput(plan.step_id, rows, elapsed_s=0.02, draft_s=0.001, num_tokens=len(rows))


def measure(num_running: int, num_drafts: int, num_steps: int, *, ahead: bool) -> dict[str, float]:
    """Median microseconds of `schedule` and `update`, one or two steps in flight."""
    scheduler = decoding_scheduler(num_running, num_steps, num_drafts)
    pending = [scheduler.schedule()]
    assert pending[0] is not None
    if not ahead:
        scheduler.update(result_of(pending.pop()))
    plan_us, update_us = [], []
    for _ in range(num_steps):
        begin = time.perf_counter()
        plan = scheduler.schedule()
        planned = time.perf_counter()
        assert plan is not None
        assert len(plan.rows) == num_running
        pending.append(plan)
        output = result_of(pending.pop(0))
        executed = time.perf_counter()
        scheduler.update(output)
        plan_us.append((planned - begin) * 1e6)
        update_us.append((time.perf_counter() - executed) * 1e6)
    return {
        "running": num_running,
        "drafts": num_drafts,
        "steps_in_flight": 2 if ahead else 1,
        "plan_us": statistics.median(plan_us),
        "update_us": statistics.median(update_us),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of each measurement")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    print(f"{'running':>8} {'drafts':>7} {'in flight':>10} {'plan':>12} {'update':>12}")
    results = []
    for num_running in (256, 1024):
        for num_drafts in (0, 2):
            for ahead in (False, True):
                result = measure(num_running, num_drafts, options.steps, ahead=ahead)
                results.append(result)
                print(
                    f"{num_running:8} {num_drafts:7} {result['steps_in_flight']:10} "
                    f"{result['plan_us']:9.0f} us {result['update_us']:9.0f} us"
                )
    if options.json:
        command = f"python benchmarks/scheduler.py --steps {options.steps}"
        result = {"command": command, "rows": results}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
