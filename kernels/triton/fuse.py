"""`fuse_layers` and `fuse_mtp`, with the products that each operation has alone."""

from functools import partial

from leadline.kernels.decoder import DecoderStack, PairingWeights
from leadline.kernels.reference.linear import linear
from leadline.kernels.triton import dense, experts, invariant
from leadline.kernels.triton import linear as fp8
from leadline.kernels.triton.decoder import Products, TritonLayers
from leadline.kernels.triton.linear_small import MAX_TOKENS, linear_small
from leadline.kernels.triton.mla import TritonMLA
from leadline.kernels.triton.mtp import TritonMTP
from leadline.kernels.vendor.cublas import vocab_logits

_PRODUCTS = Products(
    linear=linear,
    linear_fp8=fp8.linear_fp8,
    grouped_mlp=experts.grouped_mlp,
    vocab_logits=vocab_logits,
    rows=fp8.multiply_rows,
    expert_rows=experts.multiply_expert_rows,
    new_attention=TritonMLA,
)
_INVARIANT = Products(
    linear=dense.linear,
    linear_fp8=invariant.linear_fp8,
    grouped_mlp=invariant.grouped_mlp,
    vocab_logits=dense.vocab_logits,
    rows=partial(linear_small, is_invariant=True),
    expert_rows=partial(experts.multiply_expert_rows, block_t=MAX_TOKENS),
    new_attention=invariant.InvariantMLA,
)


def fuse_layers(stack: DecoderStack) -> TritonLayers:
    """See `api.FuseLayers`; bfloat16 products are cuBLAS's."""
    return TritonLayers(stack, _PRODUCTS)


def fuse_layers_invariant(stack: DecoderStack) -> TritonLayers:
    """See `api.FuseLayers`; batch-invariant."""
    return TritonLayers(stack, _INVARIANT)


def fuse_mtp(stack: DecoderStack, pairing: PairingWeights) -> TritonMTP:
    """See `api.FuseMTP`; bfloat16 products are cuBLAS's."""
    return TritonMTP(stack, pairing, _PRODUCTS)


def fuse_mtp_invariant(stack: DecoderStack, pairing: PairingWeights) -> TritonMTP:
    """See `api.FuseMTP`; batch-invariant."""
    return TritonMTP(stack, pairing, _INVARIANT)
