"""Log-probabilities of output and prompt tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from leadline.engine.request import SamplingParams, TokenLogprobs
from leadline.engine.step import NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker import prompt_logprobs as prompt_logprobs_module

VOCAB = 512


@pytest.mark.parametrize("mode", ["raw", "processed"])
def test_logprobs_are_those_of_their_mode(mode: str, bench: Any) -> None:
    params = SamplingParams(
        seed=3, max_tokens=6, allowed_token_ids=bench.few, temperature=0.5, num_logprobs=4
    )
    (got,) = bench.answer([([5, 300], params)], logprobs_mode=mode)
    assert [entry.token_id for entry in got.logprobs] == got.token_ids
    shares = [sum(np.exp(entry.top_logprobs)) for entry in got.logprobs]
    outsiders = [t for entry in got.logprobs for t in entry.top_ids if t not in bench.few]
    assert all(entry.top_logprobs == sorted(entry.top_logprobs)[::-1] for entry in got.logprobs)
    if mode == "processed":
        assert not outsiders
        assert min(shares) > 0.5
    else:
        assert outsiders
        assert max(shares) < 0.5


def prompt_scores(
    bench: Any, prompt: list[int], chunks: Sequence[int], *, num_top: int = 3
) -> list[TokenLogprobs]:
    params = SamplingParams(seed=0, max_tokens=2, num_prompt_logprobs=num_top)
    runner = bench.make_runner(1, speculates=False)
    new = NewRequest(request_id="0", token_ids=prompt, num_prompt_tokens=len(prompt), params=params)
    found, start = [], 0
    for step_id, size in enumerate(chunks):
        pages = list(range(12)) if start == 0 else []
        row = ScheduledRow("0", start, size, pages, 0, start + size == len(prompt))
        plan = SchedulerOutput(step_id, [new] if start == 0 else [], [row], [], size)
        found += runner.run(plan).rows[0].prompt_logprobs or []
        start += size
    return found


def test_prompt_logprobs_are_those_of_a_token_that_is_sampled_there(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [5, 300, 17, 17, 401, 2, 99]
    whole = prompt_scores(bench, prompt, [7])
    for end, entry in enumerate(whole, 1):
        only = SamplingParams(
            seed=1, max_tokens=1, allowed_token_ids=(prompt[end],), num_logprobs=3
        )
        (sampled,) = bench.answer([(prompt[:end], only)])
        assert sampled.logprobs == [entry]
    assert len(whole) == 6
    assert prompt_scores(bench, prompt, [2, 1, 4]) == whole
    monkeypatch.setattr(prompt_logprobs_module, "MAX_LOGITS_BYTES", 2 * 4 * VOCAB)
    assert prompt_scores(bench, prompt, [7]) == whole
    assert all(not entry.top_ids for entry in prompt_scores(bench, prompt, [7], num_top=0))
