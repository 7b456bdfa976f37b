"""Chats packed in rows of fixed length, and the attention that keeps them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor

from leadline.kernels.attention import MLAProjection

PAD_ID = 2


@dataclass(slots=True)
class PackedBatch:
    """B rows of L tokens, flattened to T = B * L.

    Attributes:
        token_ids_T, positions_T: int64; positions restart with each chat.
        is_target_T: bool, tokens that the model must learn to produce.
        mask_BLL: bool, token j is in the same chat as i and not after it.
    """

    token_ids_T: Tensor
    positions_T: Tensor
    is_target_T: Tensor
    mask_BLL: Tensor


def pack(
    chats: Iterator[tuple[list[int], list[int]]], shapes: Sequence[tuple[int, int]]
) -> Iterator[PackedBatch]:
    """Batches of (token ids, target mask) chats; a chat that does not fit opens a new row.

    Batches take turns with the shapes (rows, length); a chat longer than a row is cut.
    """
    chat = next(chats)
    for num_rows, length in cycle(shapes):
        ids = torch.full((num_rows, length), PAD_ID)
        positions = torch.zeros(num_rows, length, dtype=torch.int64)
        targets = torch.zeros(num_rows, length, dtype=torch.bool)
        owners = torch.arange(length).repeat(num_rows, 1)
        for row in range(num_rows):
            begin = 0
            while begin + min(len(chat[0]), length) <= length:
                end = begin + min(len(chat[0]), length)
                ids[row, begin:end] = torch.tensor(chat[0][:length])
                targets[row, begin:end] = torch.tensor(chat[1][:length], dtype=torch.bool)
                positions[row, begin:end] = torch.arange(end - begin)
                owners[row, begin:end] = -1 - begin
                begin, chat = end, next(chats)
        same = owners.unsqueeze(1) == owners.unsqueeze(2)
        yield PackedBatch(ids.flatten(), positions.flatten(), targets.flatten(), same.tril())


class Observer(Protocol):
    """Sees the queries and keys of every layer, for a loss on where heads look."""

    def observe(self, layer: int, q_BHLX: Tensor, k_BHLX: Tensor, scale: float) -> None:
        """Called once a layer, in order, before its attention is computed."""
        ...


class PackedMemory:
    """`AttentionMemory` of training: attends the batch itself, chat by chat.

    Keys with a position below `first_slot` are hidden, except from themselves, so that no query is
    without keys.
    """

    paged = None

    def __init__(self, batch: PackedBatch, scale: float, observer: Observer | None = None) -> None:
        self._scale = scale
        self._observer = observer
        self._masks = {0: batch.mask_BLL.unsqueeze(1)}
        num_rows, length = batch.mask_BLL.shape[:2]
        self._shape = (num_rows, length)
        is_first = (batch.positions_T == 0).view(num_rows, 1, length)
        own = torch.eye(length, dtype=torch.bool)
        self._masks[1] = (batch.mask_BLL & (~is_first | own)).unsqueeze(1)
        self._latents: dict[int, tuple[Tensor, Tensor]] = {}

    def write(self, layer: int, latent_TC: Tensor, rope_TR: Tensor) -> None:
        """See `AttentionMemory.write`."""
        self._latents[layer] = (latent_TC, rope_TR)

    def attend(
        self,
        layer: int,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        """See `AttentionMemory.attend`; keys and values are expanded."""
        latent_TC, rope_TR = self._latents.pop(layer)
        dtype, num_heads = latent_TC.dtype, q_nope_THN.shape[1]
        k_nope = latent_TC @ projection.w_uk_HNC.to(dtype).flatten(0, 1).T
        v = (latent_TC @ projection.w_uv_HVC.to(dtype).flatten(0, 1).T).unflatten(
            -1, (num_heads, -1)
        )
        k_rope = rope_TR.unsqueeze(1).expand(-1, num_heads, -1)
        k = torch.cat((k_nope.unflatten(-1, (num_heads, -1)), k_rope), -1)
        q = torch.cat((q_nope_THN, q_rope_THR), -1)
        q, k, v = (x.unflatten(0, self._shape).transpose(1, 2) for x in (q, k, v))
        if self._observer is not None:
            self._observer.observe(layer, q, k, self._scale)
        # With values as wide as keys the fused kernel applies, which never holds all scores.
        padded = torch.nn.functional.pad(v, (0, q.shape[-1] - v.shape[-1]))
        output = torch.nn.functional.scaled_dot_product_attention(
            q, k, padded, attn_mask=self._masks[first_slot], scale=self._scale
        )
        return output[..., : v.shape[-1]].transpose(1, 2).flatten(0, 1)
