"""Latent attention against its definition, written out in float64."""

import math

import pytest
import torch

from leadline.kernels.reference.cache import read_latent
from leadline.kernels.reference.mla import ReferenceMLA, attend, merge_attention
from leadline.kernels.reference.mla_tiled import TiledMLA
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    AttentionCase,
    attention_case,
    relative_error,
    run_attention,
)

ROWS = [(0, 5), (70, 1), (16, 16), (3, 40), (31, 2), (0, 1)]


def naive(case: AttentionCase, first_slot: int) -> torch.Tensor:
    """Token by token: keys and values of each head, softmax, sum (V2 paper, equations 9 to 19)."""
    outputs = []
    token = 0
    for row, num_new in enumerate(case.meta.query_lens):
        length = case.meta.seq_lens[row]
        num_pages = -(-length // case.cache.page_size)
        entries = read_latent(case.cache, case.meta.page_table[row, :num_pages]).flatten(0, 1)
        for position in range(length - num_new, length):
            keys = entries[first_slot : position + 1].double()
            latent, rope = keys.split([case.cache.layout.kv_lora_rank, keys.shape[1] - 128], 1)
            k = torch.einsum("sc,hnc->hsn", latent, case.projection.w_uk_HNC.double())
            v = torch.einsum("sc,hvc->hsv", latent, case.projection.w_uv_HVC.double())
            scores = torch.einsum("hn,hsn->hs", case.q_nope_THN[token].double(), k)
            scores += torch.einsum("hr,sr->hs", case.q_rope_THR[token].double(), rope)
            weights = (scores * case.scale).softmax(-1)
            outputs.append(torch.einsum("hs,hsv->hv", weights, v))
            token += 1
    return torch.stack(outputs)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize("first_slot", [0, 1])
@pytest.mark.parametrize("max_absorbed", [0, 8, 1000], ids=["expanded", "mixed", "absorbed"])
def test_reference_is_the_definition(first_slot: int, max_absorbed: int) -> None:
    case = attention_case(ROWS)

    def new_attention(**kw: float) -> ReferenceMLA:
        return ReferenceMLA(max_absorbed=max_absorbed, context_chunk=32, **kw)  # type: ignore[arg-type]

    output = run_attention(new_attention, case, first_slot)
    expected = naive(case, first_slot)
    assert not output.isnan().any()
    assert relative_error(output, expected) < FLOAT32_TOLERANCE


def test_query_without_keys_is_zero() -> None:
    case = attention_case([(0, 1)])
    for new_attention in (ReferenceMLA, TiledMLA):
        assert torch.equal(run_attention(new_attention, case, 1), torch.zeros(1, 4, 32))


@pytest.mark.parametrize("page_size", [16, 64])
def test_tiled_rows_do_not_depend_on_their_batch(page_size: int) -> None:
    """Alone, among others, and cut in chunks: the same bits."""
    case = attention_case(ROWS, page_size=page_size)
    together = run_attention(TiledMLA, case, 0)
    token = 0
    for row, num_new in enumerate(case.meta.query_lens):
        start = case.meta.seq_lens[row] - num_new
        for i in range(num_new):
            alone = single_token(case, row, token + i, start + i)
            assert torch.equal(run_attention(TiledMLA, alone, 0)[0], together[token + i])
        token += num_new


def single_token(case: AttentionCase, row: int, token: int, position: int) -> AttentionCase:
    """The same cache and a batch of one token."""
    meta = case.meta
    alone = type(meta)(
        query_lens=[1],
        seq_lens=[position + 1],
        page_table=meta.page_table[row : row + 1],
        slots_T=meta.slots_T[token : token + 1],
        positions_T=meta.positions_T[token : token + 1],
    )
    part = slice(token, token + 1)
    return AttentionCase(
        alone, case.cache, case.projection, case.q_nope_THN[part], case.q_rope_THR[part], case.scale
    )


def test_merge_is_attention_over_both_sets() -> None:
    q, k, v = torch.randn(3, 2, 8), torch.randn(10, 2, 8), torch.randn(10, 2, 4)
    mask = torch.rand(3, 10) < 0.5
    mask[0, :6] = False
    parts = [attend(q, k[s], v[s], mask[:, s], 0.3) for s in (slice(0, 6), slice(6, 10))]
    merged, lse = merge_attention(*parts[0], *parts[1])
    whole, whole_lse = attend(q, k, v, mask, 0.3)
    assert relative_error(merged, whole) < FLOAT32_TOLERANCE
    assert relative_error(lse, whole_lse) < FLOAT32_TOLERANCE


def test_merge_of_nothing_is_zero() -> None:
    nothing = torch.zeros(1, 1, 2), torch.full((1, 1), -math.inf)
    merged, lse = merge_attention(*nothing, *nothing)
    assert torch.equal(merged, torch.zeros(1, 1, 2))
    assert lse.item() == -math.inf
