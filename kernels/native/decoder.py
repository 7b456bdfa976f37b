"""A stack of decoder layers in one call, its weights packed once."""

import ctypes
import struct

import torch
from torch import Tensor

from leadline.kernels.decoder import DecoderStack, PagedStep
from leadline.kernels.latent_cache import LatentCache
from leadline.kernels.native.library import (
    FORMATS,
    FP8_FORMAT,
    check_columns,
    check_rows,
    library,
    pack_weight,
)
from leadline.kernels.native.moe import pack_stack, scales_apart
from leadline.kernels.native.routing import pack_router
from leadline.kernels.parameters import (
    AttentionWeights,
    DenseWeights,
    LayerWeights,
    MoEWeights,
    Weight,
)
from leadline.kernels.types import RouterConfig

_pack_whole = struct.Struct("=q").pack
pack_gain = struct.Struct("=Qq").pack
_pack_head = struct.Struct("=Qqqq").pack
_pack_stack = struct.Struct("=Qq Qq qqqqqqq qq ddd QQ").pack
_pack_step = struct.Struct("=qq QQ QQ Qq Q qqqqq").pack
PARTS = (
    *("rms_norm", "add_rms_norm", "apply_rope", "linear", "linear_fp8", "swiglu"),
    *("router_logits", "route", "permute", "grouped_mlp", "unpermute"),
    *("write_latent", "mla_attention"),
)
"""The operations that a layer is made of."""
UNKNOWN_TOKEN = 2
_NO_WEIGHT, _NO_EXPERTS = bytes(64), bytes(312)


class NativeLayers:
    """`decoder.FusedLayers`; keeps the weights that it has packed the places of."""

    def __init__(self, stack: DecoderStack) -> None:
        self._stack = stack
        self._layers = b"".join(
            _pack_layer(weights, stack.router, counts)
            for weights, counts in zip(stack.layers, stack.num_chosen, strict=True)
        )
        attention = stack.layers[0].self_attn
        w_uk, w_uv = attention.kv_b.w_uk_HNC, attention.kv_b.w_uv_HVC
        self._hidden = stack.norm.shape[0]
        self._packed: dict[torch.dtype, bytes] = {}
        latent, rope = w_uk.shape[2], 2 * stack.cos.shape[1]
        self._sizes = (self._hidden, w_uk.shape[0], w_uk.shape[1], rope, latent, w_uv.shape[1])
        self._layer_buffer = ctypes.create_string_buffer(self._layers, len(self._layers))

    def run(self, x_TD: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """See `FusedLayers.run`."""
        self.check(x_TD, step)
        packed_step, _kept = pack_step(step)
        normed_TD, raw_TD = torch.empty((2, *x_TD.shape), dtype=x_TD.dtype)
        failed = library().run_stack(
            self.pack(x_TD.dtype),
            packed_step,
            x_TD.data_ptr(),
            normed_TD.data_ptr(),
            raw_TD.data_ptr(),
            torch.get_num_threads(),
        )
        raise_if(failed, step)
        return normed_TD, raw_TD

    def pack(self, dtype: torch.dtype) -> bytes:
        """The C struct `Stack` for hidden states of a dtype."""
        if dtype not in self._packed:
            stack = self._stack
            self._packed[dtype] = _pack_stack(
                ctypes.addressof(self._layer_buffer),
                len(stack.layers),
                *gain(stack.norm),
                FORMATS[dtype],
                *self._sizes,
                stack.first_layer,
                stack.first_slot,
                stack.eps,
                stack.latent_eps,
                stack.scale,
                stack.cos.data_ptr(),
                stack.sin.data_ptr(),
            )
        return self._packed[dtype]

    def check(self, x_TD: Tensor, step: PagedStep) -> None:
        """Raises ValueError unless x has a row for each token of the step."""
        check_rows(x_TD)
        num_tokens = len(step.meta.positions_T)
        if x_TD.shape != (num_tokens, self._hidden) or not x_TD.is_contiguous():
            raise ValueError(
                f"x is {tuple(x_TD.shape)} with strides {x_TD.stride()}; planned were {num_tokens} "
                f"tokens of {self._hidden} values"
            )
        if self._stack.first_layer + len(self._stack.layers) > len(step.cache.layers):
            raise ValueError(f"a cache of {len(step.cache.layers)} layers is too small")


def pack_step(step: PagedStep) -> tuple[bytes, tuple[Tensor, ...]]:
    """The C struct `Step`, and the tensors that it points to."""
    meta, page_size = step.meta, step.cache.page_size
    table = meta.page_table.contiguous()
    width = table.shape[1] if table.ndim == 2 else 0
    longest = max(meta.seq_lens, default=0)
    if -(-longest // page_size) > width:
        raise ValueError(f"{longest} tokens in {width} pages of {page_size}")
    lens = torch.tensor((meta.query_lens, meta.seq_lens), dtype=torch.int64)
    positions, slots = meta.positions_T.contiguous(), meta.slots_T.contiguous()
    packed = _pack_step(
        len(positions),
        len(meta.query_lens),
        positions.data_ptr(),
        slots.data_ptr(),
        lens.data_ptr(),
        lens.data_ptr() + lens.element_size() * len(meta.query_lens),
        table.data_ptr(),
        width,
        *_pool(step.cache),
    )
    return packed, (table, lens, positions, slots)


def pack_pool(cache: LatentCache, page_table: Tensor) -> bytes:
    """The C struct `Step` of no tokens: pages, and the tables that say whose they are."""
    return _pack_step(
        *(0, 0, 0, 0, 0, 0), page_table.data_ptr(), page_table.shape[1], *_pool(cache)
    )


def _pool(cache: LatentCache) -> tuple[int, ...]:
    first = cache.layers[0]
    return (
        first.pages.data_ptr(),
        first.pages.nbytes,
        cache.num_pages * cache.page_size,
        FORMATS.get(first.pages.dtype, FP8_FORMAT),
        cache.page_size,
        first.layout.width,
    )


def raise_if(failed: int, step: PagedStep) -> None:
    """Raises ValueError with what the library could not take."""
    if failed == UNKNOWN_TOKEN:
        raise ValueError("there is an id that is no token")
    if failed:
        slot = int(step.meta.slots_T.max())
        raise ValueError(f"slot {slot} is beyond the {step.cache.num_pages} pages")


def _pack_layer(weights: LayerWeights, router: RouterConfig, counts: Tensor | None) -> bytes:
    mlp = weights.mlp
    if isinstance(mlp, MoEWeights):
        assert counts is not None, "experts are counted"
        experts, dense = _pack_experts(mlp, router, counts), mlp.shared_experts
    else:
        experts, dense = _NO_EXPERTS, mlp
    return (
        pack_gain(*gain(weights.input_layernorm))
        + _pack_attention(weights.self_attn)
        + pack_gain(*gain(weights.post_attention_layernorm))
        + _pack_dense(dense)
        + experts
    )


def _pack_attention(weights: AttentionWeights) -> bytes:
    return (
        pack_projection(weights.q_a_proj)
        + pack_gain(*gain(weights.q_a_layernorm))
        + pack_projection(weights.q_b_proj)
        + pack_projection(weights.kv_a_proj_with_mqa)
        + pack_gain(*gain(weights.kv_a_layernorm))
        + _pack_heads(weights.kv_b.w_uk_HNC)
        + _pack_heads(weights.kv_b.w_uv_HVC)
        + pack_projection(weights.o_proj)
    )


def _pack_dense(weights: DenseWeights | None) -> bytes:
    if weights is None:
        return pack_projection(None) * 2
    return pack_projection(weights.gate_up) + pack_projection(weights.down)


def _pack_experts(weights: MoEWeights, router: RouterConfig, counts: Tensor) -> bytes:
    bias, num_experts = weights.e_score_correction_bias, len(weights.gate)
    if bias is not None and (bias.dtype != torch.float32 or not bias.is_contiguous()):
        raise ValueError(f"bias is {tuple(bias.shape)} of {bias.dtype}, not of float32")
    gate_up, down = weights.gate_up_E2FD, weights.down_EDF
    return (
        pack_projection(weights.gate)
        + _pack_whole(0 if bias is None else bias.data_ptr())
        + pack_router(router)
        + pack_stack(gate_up)
        + _pack_whole(gate_up.shape[1])
        + _pack_whole(scales_apart(gate_up))
        + pack_stack(down)
        + _pack_whole(down.shape[1])
        + _pack_whole(scales_apart(down))
        + _pack_whole(num_experts)
        + _pack_whole(counts.data_ptr())
    )


def pack_projection(weight: Weight | None) -> bytes:
    """The C struct `Projection`."""
    if weight is None:
        return _NO_WEIGHT + _pack_whole(0)
    return pack_weight(weight) + _pack_whole(weight.shape[0])


def _pack_heads(weight_HXC: Tensor) -> bytes:
    check_columns(weight_HXC, "kv_b_proj")
    head, row = weight_HXC.stride()[:2]
    return _pack_head(weight_HXC.data_ptr(), FORMATS[weight_HXC.dtype], head, row)


def gain(weight: Tensor | None) -> tuple[int, int]:
    """Place and format of a norm's weight, nothing for None."""
    if weight is None:
        return 0, 0
    check_columns(weight, "norm")
    return weight.data_ptr(), FORMATS[weight.dtype]
