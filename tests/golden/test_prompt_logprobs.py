"""Log-probabilities of the prompt against the model's own logits, however it was computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from leadline.engine.build import build_core
from leadline.engine.core import EngineCore
from leadline.engine.request import EngineRequest, RequestOutput, SamplingParams
from leadline.engine.worker import prompt_logprobs


@pytest.fixture
def open_core(checkpoint_of: Callable[..., Path], config_of: Callable[..., Any]) -> Any:
    def open_core(**changes: Any) -> EngineCore:
        config = config_of(checkpoint_of("v3"), **changes)
        core, _ = build_core(msgspec.json.encode(config), lambda stage: None)
        return core

    return open_core


def ask(core: EngineCore, name: str, prompt_ids: list[int], **params: Any) -> list[RequestOutput]:
    sampling = SamplingParams(seed=1, max_tokens=3, temperature=0.0, **params)
    core.submit(EngineRequest(request_id=name, prompt_ids=prompt_ids, params=sampling))
    outputs = []
    while core.has_work():
        outputs += core.step()
    return outputs


def check(outputs: list[RequestOutput], expected: torch.Tensor, prompt_ids: list[int]) -> None:
    """`expected`: log-probabilities after each prompt token, [tokens, vocabulary]."""
    found = outputs[0].prompt_logprobs
    assert found is not None
    assert all(output.prompt_logprobs is None for output in outputs[1:])
    assert [entry.token_id for entry in found] == prompt_ids[1:]
    for position, entry in enumerate(found):
        row = expected[position]
        assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
        assert entry.rank == 1 + int((row > row[entry.token_id]).sum())
        assert entry.top_logprobs == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)


@pytest.mark.parametrize("budget", [64, 13])
@pytest.mark.parametrize("slice_bytes", [2**20, 3000])
def test_they_are_the_models(
    budget: int,
    slice_bytes: int,
    open_core: Any,
    open_model: Any,
    checkpoint_of: Any,
    token_ids: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks, and in slices of a row or two (512 logits are 2,048 bytes)."""
    monkeypatch.setattr(prompt_logprobs, "MAX_LOGITS_BYTES", slice_bytes)
    logits = open_model(checkpoint_of("v3")).logits(token_ids, chunk=90)
    core = open_core(max_num_batched_tokens=budget)
    check(ask(core, "a", token_ids, num_prompt_logprobs=2), logits.log_softmax(-1), token_ids)
    core.close()


def test_no_cached_page_is_read_but_they_are_committed(
    open_core: Any, token_ids: list[int]
) -> None:
    core = open_core()
    first = ask(core, "first", token_ids, num_prompt_logprobs=0)
    again = ask(core, "again", token_ids, num_prompt_logprobs=0)
    plain = ask(core, "plain", token_ids)
    core.close()
    assert first[0].prompt_logprobs == again[0].prompt_logprobs
    assert [outputs[-1].num_cached_tokens for outputs in (first, again, plain)] == [0, 0, 80]
    tokens = [[t for output in outputs for t in output.token_ids] for outputs in (first, plain)]
    assert tokens[0] == tokens[1]


def test_a_prompt_of_one_token_has_none(open_core: Any) -> None:
    core = open_core()
    assert ask(core, "a", [5], num_prompt_logprobs=1)[0].prompt_logprobs == []
    core.close()
