"""Absorbed latent attention whose every query is reduced in one order, whatever the batch.

Queries go in tiles: up to a fixed number of consecutive tokens of one request, with all their
heads. Each tile attends page after page with an online softmax (Milakov and Gimelshein, 2018), in
products of one fixed shape. So a query's bits depend on its own keys alone: not on its neighbours,
nor on how its prompt was cut in chunks. One path serves all rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.reference.cache import read_latent

_ROWS = 32  # rows (tokens x heads) of a tile, where a token has no more heads than that
_QUERIES = 32  # tokens whose heads are projected at once; changes no bit of a result


@dataclass(slots=True)
class _Tiles:
    """B tiles of Q tokens each, those with the longest contexts first.

    Attributes:
        queries_BQ: int64, which token of the batch; a tile that is not full repeats its last one.
        positions_BQ: int64, of these tokens.
        tables_BP: int64, the pages of each tile's request.
        first, last: positions of each tile's first and last token.
        places_T: int64, where in the flattened tiles each token is.
    """

    queries_BQ: Tensor
    positions_BQ: Tensor
    tables_BP: Tensor
    first: list[int]
    last: list[int]
    places_T: Tensor


class TiledMLA:
    """`api.NewMLAAttention`, batch-invariant."""

    def __init__(self, *, scale: float, page_size: int) -> None:
        self._scale = scale
        self._page_size = page_size
        self._meta: AttentionMeta | None = None
        self._tiles: _Tiles | None = None
        self._tile_size = 0

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        self._tiles = None

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`."""
        assert self._meta is not None, "plan() comes before run()"
        num_heads = q_nope_THN.shape[1]
        tile_size = max(1, _ROWS // num_heads)
        if self._tiles is None or self._tile_size != tile_size:
            self._tiles, self._tile_size = _make_tiles(self._meta, tile_size), tile_size
        tiles = self._tiles
        if not tiles.first:
            return q_nope_THN.new_empty(0, num_heads, projection.w_uv_HVC.shape[1])
        q_latent_THC = _per_head(q_nope_THN.float(), projection.w_uk_HNC.float())
        query_THX = torch.cat((q_latent_THC, q_rope_THR.float()), -1)
        query_BMX = query_THX[tiles.queries_BQ].flatten(1, 2)
        o_BMC = self._attend(query_BMX, cache, tiles, num_heads, first_slot)
        o_THC = o_BMC.view(-1, num_heads, o_BMC.shape[-1]).index_select(0, tiles.places_T)
        w_vu_HCV = projection.w_uv_HVC.float().transpose(1, 2)
        return _per_head(o_THC, w_vu_HCV).to(q_nope_THN.dtype)

    def _attend(
        self,
        query_BMX: Tensor,
        cache: LatentCacheLayer,
        tiles: _Tiles,
        num_heads: int,
        first_slot: int,
    ) -> Tensor:
        """Attention of B tiles of M = Q x H rows: [B, M, C]."""
        latent_rank, page_size = cache.layout.kv_lora_rank, self._page_size
        top = query_BMX.new_full(query_BMX.shape[:2], -torch.inf)
        total = torch.zeros_like(top)
        output = query_BMX.new_zeros(*query_BMX.shape[:2], latent_rank)
        num_active = len(tiles.last)
        for page in range(max(tiles.last) // page_size + 1):
            begin, end = page * page_size, (page + 1) * page_size
            while tiles.last[num_active - 1] < begin:
                num_active -= 1
            num_full = 0 if begin < first_slot else sum(at >= end - 1 for at in tiles.first)
            keys = read_latent(cache, tiles.tables_BP[:num_active, page])
            hidden = None
            if num_full < num_active:
                slots = torch.arange(begin, end, device=keys.device)
                positions_BQ1 = tiles.positions_BQ[num_full:num_active].unsqueeze(-1)
                visible_BQG = (slots <= positions_BQ1) & (slots >= first_slot)
                # Keys that no query of the tile sees may hold any bits, NaN included.
                keys[num_full:].masked_fill_(~visible_BQG.any(1).unsqueeze(-1), 0.0)
                hidden = ~visible_BQG.repeat_interleave(num_heads, dim=1)
            values = keys[..., :latent_rank]
            scores = torch.bmm(query_BMX[:num_active], keys.transpose(1, 2)) * self._scale
            if hidden is not None:
                scores[num_full:].masked_fill_(hidden, -torch.inf)
                # A NaN that a later query of the tile sees must not reach an earlier one; whoever
                # sees it has it in its scores.
                values = values.clone()
                values[num_full:].nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            _accumulate(top[:num_active], total[:num_active], output[:num_active], scores, values)
        return output / total.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)


def _accumulate(
    top_BM: Tensor,
    total_BM: Tensor,
    output_BMC: Tensor,
    scores_BMG: Tensor,
    values_BGC: Tensor,
) -> None:
    """Take one page into the running softmax, in place."""
    new_top = torch.maximum(top_BM, scores_BMG.amax(-1))
    base = new_top.clamp(min=torch.finfo(torch.float32).min)
    weights = torch.exp(scores_BMG - base.unsqueeze(-1))
    decay = torch.exp(top_BM - base)
    total_BM.mul_(decay).add_(weights.sum(-1))
    output_BMC.mul_(decay.unsqueeze(-1)).add_(torch.bmm(weights, values_BGC))
    top_BM.copy_(new_top)


def _make_tiles(meta: AttentionMeta, tile_size: int) -> _Tiles:
    """Cut each request's queries in tiles."""
    tiles: list[tuple[int, int, int, int]] = []  # first position, last, request, first token
    token = 0
    for row, (num_queries, length) in enumerate(zip(meta.query_lens, meta.seq_lens, strict=True)):
        start = length - num_queries
        for begin in range(0, num_queries, tile_size):
            count = min(tile_size, num_queries - begin)
            tiles.append((start + begin, start + begin + count - 1, row, token + begin))
        token += num_queries
    tiles.sort(reverse=True)
    first, last, rows, tokens = torch.tensor(tiles, dtype=torch.int64).view(-1, 4).unbind(1)
    offsets = torch.minimum(torch.arange(tile_size), (last - first).unsqueeze(1))
    queries_BQ = tokens.unsqueeze(1) + offsets
    places_T = torch.empty(token, dtype=torch.int64)
    # A repeated last token is written again by its repetitions: any of them is right.
    places_T[queries_BQ.flatten()] = torch.arange(queries_BQ.numel())
    device = meta.positions_T.device
    return _Tiles(
        queries_BQ=queries_BQ.to(device),
        positions_BQ=(first.unsqueeze(1) + offsets).to(device),
        tables_BP=meta.page_table[rows.to(meta.page_table.device)],
        first=[tile[0] for tile in tiles],
        last=[tile[1] for tile in tiles],
        places_T=places_T.to(device),
    )


def _per_head(x_THA: Tensor, w_HAB: Tensor) -> Tensor:
    """x[t, h] @ w[h], in products of `_QUERIES` tokens: [T, H, B]."""
    num_tokens = x_THA.shape[0]
    outputs = []
    for begin in range(0, num_tokens, _QUERIES):
        part = x_THA[begin : begin + _QUERIES]
        padded = torch.nn.functional.pad(part, (0, 0, 0, 0, 0, _QUERIES - part.shape[0]))
        product = torch.bmm(padded.transpose(0, 1), w_HAB)
        outputs.append(product.transpose(0, 1)[: part.shape[0]])
    return torch.cat(outputs)
