"""Noise and sampling against the published generator, the definition, and the distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.reference.logits import process_logits
from leadline.kernels.reference.sample import sample
from leadline.kernels.sampling import gumbel_noise, philox_4x32
from leadline.kernels.testing import sampling_batch

VOCAB = 50


def test_philox_known_answers() -> None:
    """Random123's kat_vectors for philox4x32-10 with counters of the form (c0, c1, 0, 0)."""
    zero = torch.zeros(1, dtype=torch.int64)
    words = [int(w) for w in philox_4x32((zero, zero), (zero, zero))]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def philox_in_python(counter: list[int], key: list[int]) -> list[int]:
    mask = 0xFFFFFFFF
    for _ in range(10):
        product0, product1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (product1 >> 32) ^ counter[1] ^ key[0],
            product1 & mask,
            (product0 >> 32) ^ counter[3] ^ key[1],
            product0 & mask,
        ]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return counter


@given(
    seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**20), token=st.integers(0, 200_000)
)
@settings(max_examples=50, deadline=None)
def test_noise_is_the_documented_function(seed: int, position: int, token: int) -> None:
    signed = seed - 2**64 if seed >= 2**63 else seed
    noise = gumbel_noise(torch.tensor([signed]), torch.tensor([position]), token + 1)[0, token]
    words = philox_in_python([token // 4, position, 0, 0], [seed & 0xFFFFFFFF, seed >> 32])
    u = (words[token % 4] + 0.5) / 2**32
    assert math.isclose(float(noise), -math.log(-math.log1p(-u)), rel_tol=1e-5, abs_tol=1e-5)


def test_noise_is_finite_at_both_ends() -> None:
    noise = gumbel_noise(torch.arange(64), torch.arange(64), 129_280)
    assert torch.isfinite(noise).all()
    assert noise.max() > 13  # the tail is there: 8 million draws reach beyond ln(8e6) - 2


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = torch.zeros(2, VOCAB)
    logits[1, [7, 30]] = 1.0
    assert sample(logits, sampling_batch(2, temperature=0.0)).tolist() == [0, 7]


def test_nan_fails_its_row_alone() -> None:
    logits = torch.randn(3, VOCAB)
    logits[1, 5] = math.nan
    for temperature in (0.0, 1.0):
        ids = sample(logits, sampling_batch(3, temperature=temperature)).tolist()
        assert ids[1] == -1
        assert min(ids[0], ids[2]) >= 0


@given(
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, VOCAB + 5),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_cuts_match_their_definition(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(seed))
    batch = sampling_batch(1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    kept = set(process_logits(logits, batch)[0].isfinite().nonzero().flatten().tolist())
    p = (logits[0].double() / temperature).softmax(-1)
    ranked = [
        i for i in p.argsort(descending=True).tolist() if p[i] >= min_p * p.max() * (1 - 1e-6)
    ]
    ranked = ranked[: top_k or VOCAB]
    total, mass, expected = sum(float(p[i]) for i in ranked), 0.0, set()
    for i in ranked:
        if mass / total >= top_p:
            break
        expected.add(i)
        mass += float(p[i])
    # A token on the very border of a cut may fall to either side in float32.
    assert len(kept ^ expected) <= 1
    assert max(ranked, key=lambda i: float(p[i])) in kept


def test_samples_follow_the_distribution() -> None:
    """Chi-square over 20,000 seeds: below the 99.9 % quantile."""
    num_samples, vocab = 20_000, 12
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(3)).expand(num_samples, -1)
    batch = sampling_batch(num_samples, temperature=0.7, top_k=9)
    counts = torch.bincount(sample(logits, batch), minlength=vocab).double()
    expected = process_logits(logits[:1], sampling_batch(1, temperature=0.7, top_k=9))[0]
    expected = expected.double().softmax(-1) * num_samples
    live = expected > 0
    assert counts[~live].sum() == 0
    statistic = ((counts - expected)[live] ** 2 / expected[live]).sum()
    assert statistic < 26.1  # chi-square with 8 degrees of freedom


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_row_does_not_depend_on_its_batch(temperature: float) -> None:
    logits = torch.randn(9, 1000)
    batch = sampling_batch(9, temperature=temperature, top_k=20, top_p=0.9, position=17)
    together = sample(logits, batch).tolist()
    for i in range(9):
        alone = sampling_batch(1, temperature=temperature, top_k=20, top_p=0.9, position=17, seed=i)
        assert sample(logits[i : i + 1], alone).item() == together[i]
