"""Rules about tokens against their definitions, one row and one token at a time."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.reference.logits import process_logits
from leadline.kernels.reference.logprobs import token_logprobs
from leadline.kernels.reference.sample import sample
from leadline.kernels.sampling import (
    NAN_LOGITS,
    NO_TOKEN,
    AllowedTokens,
    BannedTokens,
    LogitBias,
    Penalties,
    SamplingBatch,
)
from leadline.kernels.testing import batch_rows, ruled_batch, sampling_batch

VOCAB = 45  # fills no 32-bit word


def by_definition(logits: torch.Tensor, batch: SamplingBatch, row: int) -> list[float]:
    """The processed logits of one row, as `sampling_api.ProcessLogits` says it, in plain Python."""
    values = [float(value) for value in logits[row]]
    rules = [batch.allowed, batch.banned, batch.bias, batch.penalties]
    assert all(rule is not None for rule in rules)
    allowed, banned, bias, penalties = rules
    ruled = allowed.rows_R.tolist()
    if row in ruled:
        r = ruled.index(row)
        for token in range(VOCAB):
            if not int(allowed.words_RW[r, token // 32]) >> token % 32 & 1:
                values[token] = -math.inf
        for other, token in zip(banned.rows_N.tolist(), banned.tokens_N.tolist(), strict=True):
            if other == row:
                values[token] = -math.inf
        entries = (bias.rows_N.tolist(), bias.tokens_N.tolist(), bias.values_N.tolist())
        for other, token, value in zip(*entries, strict=True):
            if other == row:
                values[token] += value
        for token in range(VOCAB):
            count = int(penalties.counts_RV[r, token])
            if count or penalties.in_prompt_RV[r, token]:
                factor = float(penalties.repetition_R[r])
                values[token] *= 1 / factor if values[token] > 0 else factor
            values[token] -= float(penalties.frequency_R[r]) * count
            values[token] -= float(penalties.presence_R[r]) * (count > 0)
    if int(batch.forced_B[row]) >= 0:
        return [0.0 if token == int(batch.forced_B[row]) else -math.inf for token in range(VOCAB)]
    temperature = float(batch.temperature_B[row]) or 1.0
    values = [value / temperature for value in values]
    return cut(values, batch, row)


def cut(values: list[float], batch: SamplingBatch, row: int) -> list[float]:
    floor = max(values) + math.log(max(float(batch.min_p_B[row]), 1e-300))
    values = [value if value >= floor else -math.inf for value in values]
    k = int(batch.top_k_B[row]) or VOCAB
    kth = sorted(values, reverse=True)[k - 1]
    values = [value if value >= kth else -math.inf for value in values]
    total = sum(math.exp(value - max(values)) for value in values)
    kept, before = set(), 0.0
    for token in sorted(range(VOCAB), key=lambda token: (-values[token], token)):
        if before < float(batch.top_p_B[row]) or float(batch.top_p_B[row]) >= 1:
            kept.add(token)
        before += math.exp(values[token] - max(values)) / total
    return [value if token in kept else -math.inf for token, value in enumerate(values)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 6]),
    top_p=st.sampled_from([1.0, 0.7]),
    min_p=st.sampled_from([0.0, 0.05]),
)
def test_processed_logits_are_those_of_the_definition(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    torch.manual_seed(seed)
    logits = 4 * torch.randn(5, VOCAB)
    batch = ruled_batch(5, VOCAB, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    processed = process_logits(logits, batch)
    for row in range(5):
        expected = by_definition(logits, batch, row)
        np.testing.assert_allclose(processed[row].numpy(), expected, rtol=2e-5, atol=1e-5)


def test_greedy_takes_the_best_of_what_the_rules_leave() -> None:
    torch.manual_seed(1)
    logits = 4 * torch.randn(9, VOCAB)
    batch = ruled_batch(9, VOCAB, temperature=0.0)
    batch.forced_B = None
    expected = process_logits(logits, batch).argmax(-1)
    assert torch.equal(sample(logits, batch), expected)
    assert not torch.equal(expected, logits.argmax(-1))


def test_forced_tokens_come_whatever_is_asked_for() -> None:
    logits = torch.zeros(3, VOCAB)
    batch = sampling_batch(3, temperature=0.0)
    batch.banned = BannedTokens(torch.tensor([0]), torch.tensor([7]))
    batch.forced_B = torch.tensor([7, -1, 9])
    assert sample(logits, batch).tolist() == [7, 0, 9]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_allow_nothing_and_rows_of_nan_are_told_apart(temperature: float) -> None:
    logits = torch.zeros(4, VOCAB)
    logits[1, 3] = torch.nan
    logits[3, 3] = torch.nan
    batch = sampling_batch(4, temperature=temperature)
    batch.allowed = AllowedTokens(torch.tensor([0, 3]), torch.zeros(2, 2, dtype=torch.int32))
    ids = sample(logits, batch).tolist()
    assert [ids[0], ids[1], ids[3]] == [NO_TOKEN, NAN_LOGITS, NAN_LOGITS]
    assert ids[2] >= 0


def test_samples_follow_the_processed_distribution() -> None:
    """Chi-square at about the 0.1 % level, over rules and cuts together: one seed a sample."""
    torch.manual_seed(2)
    num_samples, vocab = 20_000, 90
    one = batch_rows(ruled_batch(3, vocab, temperature=3.0, top_p=0.95), slice(0, 1))
    logits = torch.randn(1, vocab)
    probabilities = process_logits(logits, one)[0].double().softmax(-1)
    many = sampling_batch(num_samples, temperature=3.0, top_p=0.95)
    rows = torch.arange(num_samples)

    def repeat(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(num_samples, dim=0)

    rules = (one.allowed, one.banned, one.bias, one.penalties)
    assert all(rule is not None for rule in rules)
    many.allowed = AllowedTokens(rows, repeat(one.allowed.words_RW))
    many.banned = BannedTokens(rows.repeat(len(one.banned.tokens_N)), repeat(one.banned.tokens_N))
    many.bias = LogitBias(
        rows.repeat(len(one.bias.tokens_N)), repeat(one.bias.tokens_N), repeat(one.bias.values_N)
    )
    fields = [getattr(one.penalties, field.name) for field in dataclasses.fields(Penalties)]
    many.penalties = Penalties(rows, *(repeat(values) for values in fields[1:]))
    sampled = sample(logits.expand(num_samples, -1), many)
    counts = torch.bincount(sampled, minlength=vocab).double()
    expected = probabilities * num_samples
    used = expected > 0
    assert 5 < int(used.sum()) < vocab
    assert counts[~used].sum() == 0
    chi_square = ((counts - expected)[used] ** 2 / expected[used]).sum()
    freedom = int(used.sum()) - 1
    assert chi_square < freedom + 3.5 * math.sqrt(2 * freedom) + 6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), num_top=st.integers(0, VOCAB + 3))
def test_logprobs_and_ranks(seed: int, num_top: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(4, VOCAB).round(decimals=1)  # with ties
    logits[2, 5:] = -torch.inf
    ids = torch.tensor([0, 44, 5, 17])
    own, ranks, top_ids, top = token_logprobs(logits, ids, num_top)
    expected = logits.double().log_softmax(-1)
    for row in range(4):
        order = sorted(range(VOCAB), key=lambda token: (-float(logits[row, token]), token))
        assert top_ids[row].tolist() == order[:num_top]
        np.testing.assert_allclose(top[row], expected[row, order[:num_top]], rtol=1e-5, atol=1e-5)
        own_logit = logits[row, ids[row]]
        assert int(ranks[row]) == 1 + int((logits[row] > own_logit).sum())
        np.testing.assert_allclose(own[row], expected[row, ids[row]], rtol=1e-5, atol=1e-5)
