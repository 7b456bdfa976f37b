"""Sampling in Triton: the documented noise, and the reference's tokens."""

import math

import pytest
import torch

from leadline.kernels.reference.sample import merge_shards
from leadline.kernels.reference.sample import sample as reference
from leadline.kernels.sampling import gumbel_noise
from leadline.kernels.testing import ruled_batch, sampling_batch, to_device

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.sample import BLOCK, noise_kernel, sample, sample_shard

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_noise_is_that_of_the_reference() -> None:
    """Within 4 units in the last place of a float32, and of 1 near zero."""
    num_rows, vocab_size = 6, 5001
    seeds = torch.randint(-(2**63), 2**63 - 1, (num_rows,))
    positions = torch.tensor([0, 1, 77, 4096, 2**20, 2**31 - 1])
    noise = torch.empty(num_rows, vocab_size, device=DEVICE)
    block = 1024
    grid = (num_rows, -(-vocab_size // block))
    noise_kernel[grid](seeds.to(DEVICE), positions.to(DEVICE), noise, vocab_size, block=block)
    expected = gumbel_noise(seeds, positions, vocab_size)
    ulp = 2.0**-23 * expected.abs().clamp(min=1.0)
    assert ((noise.cpu() - expected).abs() <= 4 * ulp).all()


@pytest.mark.parametrize("vocab_size", [50, BLOCK + 100])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_takes_the_tokens_of_the_reference(vocab_size: int, temperature: float) -> None:
    logits = torch.randn(8, vocab_size).round(decimals=1)
    for parameters in ({}, {"top_k": 9, "top_p": 0.8, "min_p": 0.05}):
        parameters |= {"temperature": temperature, "position": 3}
        for batch in (
            sampling_batch(8, **parameters),
            ruled_batch(8, vocab_size, **parameters),
        ):
            ids = sample(*to_device((logits, batch), DEVICE))
            assert torch.equal(ids.cpu(), reference(logits, batch))


def test_greedy_and_sampled_rows_together() -> None:
    logits = torch.randn(6, 300)
    batch = sampling_batch(6)
    batch.temperature_B = torch.tensor([0.0, 1.0, 0.0, 0.5, 2.0, 0.0])
    ids = sample(*to_device((logits, batch), DEVICE)).cpu()
    assert torch.equal(ids, reference(logits, batch))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ties_nan_and_rows_that_allow_nothing(temperature: float) -> None:
    logits = torch.full((4, 200), -math.inf)
    logits[0, [7, 30]] = 1.0
    logits[1] = 0.5
    logits[1, 150] = math.nan
    logits[2, 150] = 0.0
    batch = sampling_batch(4, temperature=temperature)
    ids = sample(*to_device((logits, batch), DEVICE)).cpu()
    assert torch.equal(ids, reference(logits, batch))
    ruled = ruled_batch(4, 200, temperature=temperature)
    ids = sample(*to_device((logits, ruled), DEVICE)).cpu()
    assert torch.equal(ids, reference(logits, ruled))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_shards_give_the_token_of_the_whole(temperature: float) -> None:
    """Cut in three, with ties over the borders, a NaN, and a shard without any finite logit."""
    logits = torch.randn(4, 600).round(decimals=1)
    logits[0, [100, 300, 500]] = 9.0
    logits[1, 450] = math.nan
    logits[2, :200] = -math.inf
    batch = sampling_batch(4, temperature=temperature, position=5)
    parts = [
        sample_shard(*to_device((logits[:, first:end], batch), DEVICE), first)
        for first, end in ((0, 200), (200, 404), (404, 600))
    ]
    values, ids = (torch.stack(column) for column in zip(*parts, strict=True))
    assert torch.equal(merge_shards(values, ids).cpu(), reference(logits, batch))
