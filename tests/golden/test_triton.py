"""The engine with Triton's kernels, all of them in its interpreter: batch-invariant mode."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from leadline.engine import draft_policy
from leadline.engine.build import build_core
from leadline.engine.config import ResolvedConfig
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.engine.worker import drafter
from leadline.kernels import select
from leadline.kernels.select import Platform, select_kernels
from leadline.kernels.testing import relative_error

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.numerics import INTERPRETED

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.skipif(not INTERPRETED.value, reason="the engine runs on a CPU here"),
]
TOLERANCE = 1e-4
CheckpointOf = Callable[..., Path]
Tokens = dict[str, list[int]]


@pytest.fixture
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are chosen for a CPU too."""
    monkeypatch.setattr(select, "missing", lambda device: None)
    _, choices = select_kernels(Platform(batch_invariant=True))
    others = {c.operation for c in choices if not c.chosen.startswith("triton")}
    assert others == {"merge_shards"}


@pytest.mark.slow
def test_logits(
    checkpoint_of: CheckpointOf, open_model: Callable[..., Any], triton_kernels: None
) -> None:
    """Prompt and MTP logits, whole and in chunks, are those of the reference."""
    token_ids = torch.randint(3, 500, (13,), generator=torch.Generator().manual_seed(1)).tolist()
    changes = {"kv_cache_dtype": "fp8", "speculative_tokens": 1}
    path = checkpoint_of("v3")
    actual = open_model(path, **changes)
    names = [choice.operation for choice in select_kernels(Platform())[1]]
    expected = open_model(
        path, **changes, kernels=dict.fromkeys(names, "reference"), batch_invariant=False
    )
    for name in ("logits", "mtp_logits"):
        wanted = getattr(expected, name)(token_ids, 13)
        whole = getattr(actual, name)(token_ids, 13)
        assert relative_error(whole, wanted) < TOLERANCE
        assert torch.equal(getattr(actual, name)(token_ids, 8), whole)


RULED: list[dict[str, Any]] = [
    {"temperature": 0.0, "num_logprobs": 2},
    {"temperature": 1.0, "top_p": 0.8, "repetition_penalty": 1.3},
    {"temperature": 1.2, "top_k": 9, "allowed_token_ids": tuple(range(0, 512, 2))},
]
PLAIN: list[dict[str, Any]] = [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 50}]


def requests(params: list[dict[str, Any]]) -> list[EngineRequest]:
    """Of lengths that differ."""
    dice = random.Random(3)
    return [
        EngineRequest(
            request_id=str(i),
            prompt_ids=[dice.randrange(512) for _ in range(3 + 3 * i)],
            params=SamplingParams(seed=i, max_tokens=3, **values),
        )
        for i, values in enumerate(params)
    ]


def run(
    path: Path, *, together: int, params: list[dict[str, Any]] = RULED, **changes: Any
) -> tuple[Tokens, int]:
    """(tokens of every request, drafts that were made)."""
    values: dict[str, Any] = {
        "model": str(path),
        "served_model_name": "m",
        "device": "cpu",
        "max_model_len": 64,
        "page_size": 4,
        "num_pages": 60,
        "kv_cache_dtype": "fp8",
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "prefix_caching": False,
        "seed": 0,
        "num_threads": 1,
        "dtype": "float32",
        "kernels": {},
        "batch_invariant": True,
    }
    config = ResolvedConfig(**(values | changes))
    core, _ = build_core(msgspec.json.encode(config), lambda stage: None)
    tokens: Tokens = {}
    for begin in range(0, len(params), together):
        for request in requests(params)[begin : begin + together]:
            core.submit(request)
        while core.has_work():
            for output in core.step():
                assert output.error is None
                tokens.setdefault(output.request_id, []).extend(output.token_ids)
    num_drafts = core.stats().num_drafts
    core.close()
    return tokens, num_drafts


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["bfloat16", "fp8"])
def test_fused_layers_have_the_bits_of_their_operations(
    fmt: str, checkpoint_of: CheckpointOf, open_model: Callable[..., Any], triton_kernels: None
) -> None:
    """Weights in FP8 as stored, in float32 and with the MTP layer; bfloat16 ones."""
    token_ids = torch.randint(3, 500, (6,), generator=torch.Generator().manual_seed(2)).tolist()
    dtype = "float32" if fmt == "fp8" else fmt
    changes = {"kv_cache_dtype": "bfloat16", "dtype": dtype, "speculative_tokens": 1}
    path = checkpoint_of("v3", fmt)
    fused = open_model(path, **changes)
    apart = open_model(
        path, **changes, kernels={"fuse_layers": "reference", "fuse_mtp": "reference"}
    )
    for name in ("logits", "mtp_logits") if fmt == "fp8" else ("logits",):
        assert torch.equal(getattr(fused, name)(token_ids, 6), getattr(apart, name)(token_ids, 6))


@pytest.mark.slow
def test_neither_drafts_nor_neighbours_nor_chunks_change_a_token(
    checkpoint_of: CheckpointOf, triton_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An FP8 checkpoint, its weights and its cache as they are stored."""
    monkeypatch.setattr(drafter, "MIN_DRAFT_PROBABILITY", 0.0)
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    path = checkpoint_of("v3", "fp8")
    alone, _ = run(path, together=1)
    assert [len(tokens) for tokens in alone.values()] == [3, 3, 3]
    together, num_drafts = run(path, together=3, speculative_tokens=2, max_num_batched_tokens=9)
    assert num_drafts > 2
    assert together == alone


@pytest.mark.slow
def test_a_chain_of_drafts_in_one_call_is_the_chain_pass_by_pass(
    checkpoint_of: CheckpointOf, triton_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some chains end at an unlikely draft, so that equal numbers of drafts say something."""
    monkeypatch.setattr(drafter, "MIN_DRAFT_PROBABILITY", 0.004)
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    path = checkpoint_of("v3")
    changes = {"together": 2, "params": PLAIN, "speculative_tokens": 3}
    at_once = run(path, **changes)
    by_passes = run(path, **changes, kernels={"fuse_mtp": "reference"})
    assert at_once == by_passes
    assert at_once[1] > 1
