"""The C++ kernels that end a step: logits as they are sampled from, and log-probabilities."""

import math

import pytest
import torch

from leadline.kernels.native import library
from leadline.kernels.native.logprobs import token_logprobs
from leadline.kernels.native.merge import merge_attention
from leadline.kernels.native.quant import quantize_fp8
from leadline.kernels.native.sampling import process_logits
from leadline.kernels.reference.logprobs import token_logprobs as reference_logprobs
from leadline.kernels.testing import FLOAT32_TOLERANCE, relative_error, sampling_batch

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason=library.MISSING)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_logprobs_of_rows_without_a_distribution() -> None:
    """NaN where there is one, or where nothing is possible; what cannot be sampled is last."""
    logits = torch.zeros(4, 5)
    logits[0, 2], logits[1], logits[2, 1] = math.nan, -math.inf, math.inf
    logits[3] = torch.tensor([-math.inf, 1.0, -math.inf, 1.0, 0.0])
    own, ranks, ids, top = token_logprobs(logits, torch.tensor([0, 1, 2, 2]), 9)
    assert own[:3].isnan().all()
    assert top[:3].isnan().all()
    assert own[3] == -math.inf
    assert int(ranks[3]) == 4
    assert ids[3].tolist() == [1, 3, 4, 0, 2]
    assert relative_error(top[3, :3], logits[3].log_softmax(-1)[[1, 3, 4]]) < FLOAT32_TOLERANCE


def test_logprobs_of_a_large_vocabulary() -> None:
    logits = 3 * torch.randn(3, 129_280)
    ids = torch.tensor([0, 77_777, 129_279])
    for actual, expected in zip(
        token_logprobs(logits, ids, 20), reference_logprobs(logits, ids, 20), strict=True
    ):
        if actual.is_floating_point():
            assert relative_error(actual, expected) < FLOAT32_TOLERANCE
        else:
            assert torch.equal(actual, expected)


def test_logits_with_a_nan_keep_it() -> None:
    logits = torch.randn(2, 50)
    logits[0, 7] = math.nan
    batch = sampling_batch(2, temperature=0.5, top_k=3, top_p=0.9)
    processed = process_logits(logits, batch)
    assert processed[0].isnan().tolist() == logits[0].isnan().tolist()
    assert int(processed[1].isfinite().sum()) <= 3


def test_what_is_no_distribution_is_named() -> None:
    with pytest.raises(ValueError, match=r"ids \[5\] are not all in \[0, 5\)"):
        token_logprobs(torch.zeros(1, 5), torch.tensor([5]), 0)
    with pytest.raises(ValueError, match=r"logits are torch\.float64 on cpu"):
        process_logits(torch.zeros(1, 5).double(), sampling_batch(1))
    with pytest.raises(ValueError, match="scale_format is 'e8m0'; there is fp32, ue8m0"):
        quantize_fp8(torch.zeros(1, 5), "e8m0")
    o, lse = torch.zeros(2, 1, 3), torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"\(2, 1, 3\) of torch\.float32.*float32 \[T, H, V\]"):
        merge_attention(o, lse, o[:1], lse)
