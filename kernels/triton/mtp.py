"""The MTP layer with its small parts fused, and chains of drafts that ask the host once."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.decoder import ChainStart, DecoderStack, PagedStep, PairingWeights
from leadline.kernels.latent_cache import LatentCache
from leadline.kernels.triton.decoder import Products, TritonLayers
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.logprobs import token_logprobs
from leadline.kernels.triton.numerics import narrow
from leadline.kernels.triton.sample import sample


@triton.jit
def _normed(row_ptr, weight_ptr, num_columns, eps, dtype: tl.constexpr, groups: tl.constexpr):
    columns = tl.arange(0, groups)[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_columns
    x = tl.load(row_ptr + columns, mask, 0.0).to(tl.float32)
    mean = tl.sum(tl.sum(x * x, axis=1), axis=0) / num_columns
    weight = tl.load(weight_ptr + columns, mask, 0.0).to(tl.float32)
    return narrow(x * tl.rsqrt(mean + eps) * weight, dtype)


@triton.jit
def pair_kernel(
    ids_ptr,
    embedding_ptr,
    hidden_ptr,
    enorm_ptr,
    hnorm_ptr,
    y_ptr,
    embedding_stride,
    hidden_stride,
    num_columns,
    eps,
    groups: tl.constexpr,
):
    """One token a program: its normed embedding, and beside it the normed hidden state."""
    token = tl.program_id(0).to(tl.int64)
    embedding_ptr += tl.load(ids_ptr + token) * embedding_stride
    dtype: tl.constexpr = y_ptr.dtype.element_ty
    columns = tl.arange(0, groups)[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_columns
    y_ptr += token * 2 * num_columns + columns
    e = _normed(embedding_ptr, enorm_ptr, num_columns, eps, dtype, groups)
    tl.store(y_ptr, e, mask)
    h = _normed(hidden_ptr + token * hidden_stride, hnorm_ptr, num_columns, eps, dtype, groups)
    tl.store(y_ptr + num_columns, h, mask)


def pair(pairing: PairingWeights, hidden_TD: Tensor, ids_T: Tensor, eps: float) -> Tensor:
    """Normed embeddings beside normed hidden states, [T, 2 D] in the dtype of the latter."""
    hidden, embedding = rows_of(hidden_TD), rows_of(pairing.embed_tokens)
    num_tokens, num_columns = hidden.shape
    y = torch.empty(num_tokens, 2 * num_columns, dtype=hidden.dtype, device=hidden.device)
    if y.numel():
        pair_kernel[(num_tokens,)](
            ids_T.contiguous(),
            embedding,
            hidden,
            pairing.enorm.contiguous(),
            pairing.hnorm.contiguous(),
            y,
            embedding.stride(0),
            hidden.stride(0),
            num_columns,
            eps,
            groups=triton.next_power_of_2(triton.cdiv(num_columns, 128)),
            num_warps=8,
        )
    return y


class TritonMTP:
    """`decoder.FusedMTP`."""

    def __init__(self, stack: DecoderStack, pairing: PairingWeights, products: Products) -> None:
        self._eps = stack.eps
        self._layers = TritonLayers(stack, products)
        self._pairing = pairing
        self._products = products

    def run(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """See `FusedMTP.run`."""
        return self._layers.run(self._combine(hidden_TD, ids_T), step)

    def write(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> None:
        """See `FusedMTP.write`."""
        self._layers.write(self._combine(hidden_TD, ids_T), step)

    def _combine(self, hidden_TD: Tensor, ids_T: Tensor) -> Tensor:
        rows = pair(self._pairing, hidden_TD, ids_T, self._eps)
        return self._products.multiply(rows, self._pairing.eh_proj)

    def draft(self, start: ChainStart, cache: LatentCache) -> tuple[list[list[int]], int]:
        """See `FusedMTP.draft`.

        All chains are made as long as the longest may be, and are cut where they end on the host,
        which asks for them once; a row without room for another draft writes nothing.
        """
        num_rows, depth = len(start.token_ids), max(start.nums_drafts, default=0)
        if num_rows == 0 or depth == 0:
            return [[] for _ in start.token_ids], 0
        device = start.hidden_BD.device
        ids = torch.tensor(start.token_ids, dtype=torch.int64, device=device)
        hidden = start.hidden_BD
        drafts, chances = [], []
        for i in range(depth):
            normed, raw = self.run(hidden, ids, PagedStep(_meta(start, i, cache.page_size), cache))
            logits = self._products.vocab_logits(normed, self._pairing.head)
            at = start.sampling.positions_B + i
            sampled = sample(logits, replace(start.sampling, positions_B=at))
            ids = sampled.clamp(min=0)
            drafts.append(sampled)
            chances.append(token_logprobs(logits, ids, 0)[0].exp())
            hidden = normed if start.after_norm else raw
        is_likely = torch.stack(chances, 1) >= start.least_probability
        columns = torch.where(is_likely, torch.stack(drafts, 1), -1).tolist()
        chains = zip(columns, start.nums_drafts, start.end_ids, strict=True)
        return [_cut(chain[:most], end_ids) for chain, most, end_ids in chains], num_rows * depth


def _cut(chain: list[int], end_ids: Sequence[int]) -> list[int]:
    """Up to the first that is none, or to the first that ends the text."""
    drafts: list[int] = []
    for draft in chain:
        if draft < 0:
            break
        drafts.append(draft)
        if draft in end_ids:
            break
    return drafts


def _meta(start: ChainStart, i: int, page_size: int) -> AttentionMeta:
    """One new token a row, `i` tokens on, or where its last draft is."""
    ahead = [min(i, most - 1) for most in start.nums_drafts]
    positions = [at + more for at, more in zip(start.positions, ahead, strict=True)]
    device = start.page_table.device
    positions_B = torch.tensor(positions, dtype=torch.int64, device=device)
    pages = start.page_table.gather(1, (positions_B // page_size).unsqueeze(1)).squeeze(1)
    has_room = torch.tensor([i < most for most in start.nums_drafts], device=device)
    slots_B = torch.where(has_room, pages * page_size + positions_B % page_size, -1)
    return AttentionMeta(
        query_lens=[1] * len(positions),
        seq_lens=[at + 1 for at in positions],
        page_table=start.page_table,
        slots_T=slots_B,
        positions_T=positions_B,
    )
