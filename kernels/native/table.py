"""Which operations have a native kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leadline.kernels.native import (
    cache,
    decoder,
    linear,
    logprobs,
    merge,
    mla,
    moe,
    mtp,
    norm,
    quant,
    rope,
    routing,
    sampling,
)


@dataclass(frozen=True, slots=True)
class NativeKernel:
    """A function of an operation's contract.

    Attributes:
        formats: see `select.Implementation`.
        parts: operations that it stands for, native as well.
    """

    function: Callable[..., Any]
    formats: str = ""
    parts: tuple[str, ...] = ()


def native_kernels() -> dict[str, NativeKernel]:
    """By operation."""
    return {
        "rms_norm": NativeKernel(norm.rms_norm),
        "add_rms_norm": NativeKernel(norm.add_rms_norm),
        "apply_rope": NativeKernel(rope.apply_rope),
        "linear": NativeKernel(linear.linear),
        "linear_fp8": NativeKernel(linear.linear, formats="activations as they are"),
        "quantize_fp8": NativeKernel(quant.quantize_fp8),
        "swiglu": NativeKernel(moe.swiglu),
        "vocab_logits": NativeKernel(linear.vocab_logits),
        "router_logits": NativeKernel(linear.router_logits),
        "route": NativeKernel(routing.route),
        "permute": NativeKernel(routing.permute),
        "grouped_mlp": NativeKernel(moe.grouped_mlp),
        "unpermute": NativeKernel(routing.unpermute),
        "write_latent": NativeKernel(cache.write_latent),
        "read_latent": NativeKernel(cache.read_latent),
        "merge_attention": NativeKernel(merge.merge_attention),
        "mla_attention": NativeKernel(mla.NativeMLA),
        "process_logits": NativeKernel(sampling.process_logits),
        "sample": NativeKernel(sampling.sample),
        "token_logprobs": NativeKernel(logprobs.token_logprobs),
        "fuse_layers": NativeKernel(decoder.NativeLayers, parts=decoder.PARTS),
        "fuse_mtp": NativeKernel(mtp.NativeMTP, parts=mtp.PARTS),
    }
