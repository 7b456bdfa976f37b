"""Logits and greedy tokens against Hugging Face transformers on the same weights, float32."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

from leadline.kernels.api import KernelSet

TOLERANCE = 1e-4
NUM_GREEDY = 32
SHAPES = ["v3", "v2-lite", "kimi"]
TILED = ("linear", "linear_fp8", "router_logits", "grouped_mlp", "mla_attention")
OPERATIONS = [field.name for field in fields(KernelSet)]
KERNELS = {
    "chosen": {},
    "tiled": {"kernels": dict.fromkeys(TILED, "tiled")},
    "reference": {"kernels": dict.fromkeys(OPERATIONS, "reference"), "batch_invariant": False},
}

OpenModel = Callable[..., Any]
CheckpointOf = Callable[..., Path]


@cache
def oracle(path: Path) -> Any:
    """The model as transformers loads it; nothing but the MTP layer may be left unread."""
    model, report = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"]
    return model.eval()


def oracle_logits(path: Path, token_ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = oracle(path)(torch.tensor([token_ids])).logits[0]
    return logits


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("chunk", [90, 64, 7, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits(
    shape: str,
    chunk: int,
    kernels: str,
    checkpoint_of: CheckpointOf,
    open_model: OpenModel,
    token_ids: list[int],
) -> None:
    path = checkpoint_of(shape)
    logits = open_model(path, **KERNELS[kernels]).logits(token_ids, chunk)
    expected = oracle_logits(path, token_ids)
    assert expected.std() > 0.1, "logits that are all alike would show nothing"
    assert (logits - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens(
    shape: str, checkpoint_of: CheckpointOf, open_model: OpenModel, token_ids: list[int]
) -> None:
    path = checkpoint_of(shape)
    model = open_model(path)
    ids = token_ids[:20]
    for _ in range(NUM_GREEDY):
        ids = [*ids, int(model.logits(ids, chunk=len(ids))[-1].argmax())]
    expected = oracle(path).generate(
        torch.tensor([token_ids[:20]]),
        attention_mask=torch.ones(1, 20, dtype=torch.int64),
        max_new_tokens=NUM_GREEDY,
        min_new_tokens=NUM_GREEDY,
        do_sample=False,
        pad_token_id=0,
    )
    assert ids == expected[0].tolist()


@pytest.mark.parametrize("chunk", [64, 7, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
def test_chunks_agree(
    dtype: str,
    chunk: int,
    checkpoint_of: CheckpointOf,
    open_model: OpenModel,
    token_ids: list[int],
) -> None:
    """Whole, chunked and token by token, through any cache format: the same bits."""
    model = open_model(checkpoint_of("v3"), kv_cache_dtype=dtype)
    whole = model.logits(token_ids, len(token_ids))
    assert torch.equal(model.logits(token_ids, chunk), whole)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.02), ("fp8", 0.15)])
def test_cache_format_costs_little(
    dtype: str,
    bound: float,
    checkpoint_of: CheckpointOf,
    open_model: OpenModel,
    token_ids: list[int],
) -> None:
    """The median position: a few others route to another expert, which no rounding bound covers."""
    path = checkpoint_of("v3")
    exact = open_model(path).logits(token_ids, 90)
    rounded = open_model(path, kv_cache_dtype=dtype).logits(token_ids, 90)
    error = ((rounded - exact).norm(dim=-1) / exact.norm(dim=-1)).median()
    assert 0 < error < bound


@cache
def mtp_oracle(path: Path) -> Any:
    """transformers' own MTP layer; 5.23 hard-codes its number as 61."""
    model = oracle(path)
    layer = model.config.num_hidden_layers
    model._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{layer}.*"]
    return MtpModel.from_pretrained(model).eval()


@pytest.mark.parametrize("chunk", [90, 7, 1])
def test_mtp_logits(
    chunk: int, checkpoint_of: CheckpointOf, open_model: OpenModel, token_ids: list[int]
) -> None:
    """Row i - 1 pairs the hidden state of token i - 1 with token i and predicts token i + 1."""
    path = checkpoint_of("v3")
    logits = open_model(path).mtp_logits(token_ids, chunk)
    ids, mtp = torch.tensor([token_ids]), mtp_oracle(path)
    with torch.no_grad():
        hidden = oracle(path).model(ids).last_hidden_state
        positions = torch.arange(1, len(token_ids)).unsqueeze(0)
        hidden = mtp.forward_layer(0, hidden[:, :-1], positions, None, input_ids=ids[:, 1:])
        expected = mtp._project_to_logits(hidden)[0]
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() < TOLERANCE
