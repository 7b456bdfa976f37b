"""Rules, cuts and log-probabilities in Triton: borders, ties and rows that hold no number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leadline.kernels.reference.logits import process_logits as reference
from leadline.kernels.reference.logprobs import token_logprobs as reference_logprobs
from leadline.kernels.sampling import SamplingBatch
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    relative_error,
    ruled_batch,
    sampling_batch,
    to_device,
)

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.logits import CUT_BLOCK, process_logits
from leadline.kernels.triton.logprobs import BLOCK, token_logprobs

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def process(logits: Tensor, batch: SamplingBatch) -> Tensor:
    return process_logits(*to_device((logits, batch), DEVICE)).cpu()


def kept(logits: Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def test_rows_of_more_than_a_block() -> None:
    """Each row with parameters of its own, most with rules; a forced one; one without cuts."""
    torch.manual_seed(0)
    vocab_size = CUT_BLOCK + 333
    logits = torch.randn(6, vocab_size)
    batch = ruled_batch(6, vocab_size, position=3)
    batch.no_cuts, batch.all_greedy = False, False
    batch.temperature_B = torch.tensor([0.0, 1.0, 0.3, 2.0, 0.7, 1.0])
    batch.top_k_B = torch.tensor([0, 40, 0, vocab_size + 1, 7, 0])
    batch.top_p_B = torch.tensor([1.0, 1.0, 0.9, 0.5, 0.95, 1.0])
    batch.min_p_B = torch.tensor([0.1, 0.0, 0.0, 0.0, 0.02, 0.0])
    assert relative_error(process(logits, batch), reference(logits, batch)) < FLOAT32_TOLERANCE


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0, -0.0, 2.0, 0.0]])
    for top_k, tokens in ((1, [0]), (2, [0, 2, 3, 5]), (6, [0, 1, 2, 3, 4, 5, 6])):
        assert kept(process(logits, sampling_batch(1, top_k=top_k))) == [tokens]


def test_top_p_keeps_the_first_of_equals() -> None:
    logits = torch.full((1, 3000), -math.inf)
    logits[0, [2, 700, 1500, 2900]] = 1.0
    for top_p, tokens in ((0.2, [2]), (0.45, [2, 700]), (0.9, [2, 700, 1500, 2900])):
        assert kept(process(logits, sampling_batch(1, top_p=top_p))) == [tokens]


@given(
    values=st.lists(st.integers(-4, 4), min_size=2, max_size=20),
    temperature=st.sampled_from([0.0, 0.5, 1.7]),
    top_k=st.integers(0, 21),
    top_p=st.sampled_from([0.05, 0.33, 0.77, 1.0]),
    min_p=st.sampled_from([0.0, 0.03, 0.4, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_small_rows_full_of_ties(
    values: list[int], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = torch.tensor([values], dtype=torch.float32)
    batch = sampling_batch(1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    actual, expected = process(logits, batch), reference(logits, batch)
    # A token whose probabilities before it add up to top-p may fall to either side.
    assert len(set(kept(actual)[0]) ^ set(kept(expected)[0])) <= 1
    both = actual.isfinite() & expected.isfinite()
    assert torch.allclose(actual[both], expected[both], rtol=1e-6)


def test_rows_that_hold_a_nan_or_nothing_leave_the_others_alone() -> None:
    logits = torch.randn(3, 200)
    batch = sampling_batch(3, top_k=5, top_p=0.9)
    alone = process(logits[1:2], sampling_batch(1, top_k=5, top_p=0.9))
    logits[0, 9], logits[2] = math.nan, -math.inf
    together = process(logits, batch)
    assert torch.equal(together[1:2], alone)
    assert together[0, 9].isnan()
    assert (together[2] == -math.inf).all()


def test_the_argument_is_left_as_it_is() -> None:
    logits = torch.randn(4, 100)
    before = logits.clone()
    process(logits, ruled_batch(4, 100, top_k=5))
    process(logits, sampling_batch(4, temperature=0.0))
    assert torch.equal(logits, before)


def test_logprobs_of_rows_of_more_than_a_block() -> None:
    """Ties in several blocks, tokens that cannot be sampled, ids in every part."""
    torch.manual_seed(0)
    logits = torch.randn(3, BLOCK + 77).round(decimals=1)
    logits[0, [5, BLOCK - 1, BLOCK + 3]] = 7.0
    logits[1, : BLOCK + 70] = -math.inf
    ids = torch.tensor([BLOCK + 3, 4, BLOCK + 76])
    actual = token_logprobs(*to_device((logits, ids), DEVICE), 12)
    for got, wanted in zip(actual, reference_logprobs(logits, ids, 12), strict=True):
        assert got.dtype == wanted.dtype
        if wanted.is_floating_point():
            assert relative_error(got.cpu(), wanted) < FLOAT32_TOLERANCE
        else:
            assert torch.equal(got.cpu(), wanted)


def test_logprobs_of_a_nan_name_tokens_that_exist() -> None:
    logits = torch.randn(2, 30)
    logits[0, 3] = math.nan
    _, _, top_ids, _ = token_logprobs(*to_device((logits, torch.tensor([3, 4])), DEVICE), 30)
    assert ((top_ids >= 0) & (top_ids < 30)).all()
