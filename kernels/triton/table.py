"""Which operations have a Triton kernel, and where they can run; imports Triton for none of it."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_MIN_CAPABILITY = (9, 0)
_FP8_FORMATS = "activations fp8 1x128, scales fp32"
_UE8M0_FORMATS = "activations fp8 1x128, scales ue8m0"


@dataclass(frozen=True, slots=True)
class Deferred:
    """A function of a module that is imported when it is first needed."""

    module: str
    name: str
    package: str = "triton"

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        module = importlib.import_module(f"leadline.kernels.{self.package}.{self.module}")
        function: Callable[..., Any] = getattr(module, self.name)
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self.load()(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """An operation's function; see `select.Implementation` for the others."""

    function: Deferred
    batch_invariant: bool
    formats: str = ""
    name: str = "triton"
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()


_PRODUCTS = ("linear_fp8", "grouped_mlp", "mla_attention")
_PARTS_OF_A_LAYER = (
    *("rms_norm", "add_rms_norm", "apply_rope", "swiglu", "router_logits", "route"),
    *("permute", "unpermute", "write_latent"),
)


def _parts(products: str, linear: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What a stack of layers stands for, and by which names."""
    parts = [(operation, ("triton",)) for operation in _PARTS_OF_A_LAYER]
    return (*parts, *((operation, (products,)) for operation in _PRODUCTS), ("linear", linear))


def _mtp_parts(products: str, linear: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What an MTP layer and its drafts stand for."""
    others = (("vocab_logits", linear), ("sample", ("triton",)), ("token_logprobs", ("triton",)))
    return (*_parts(products, linear), *others)


def ue8m0_kernels() -> dict[str, TritonKernel]:
    """By operation; scales that are powers of two, for checkpoints that were trained with them."""
    name = "triton-ue8m0"
    return {
        "linear_fp8": TritonKernel(
            Deferred("linear", "linear_fp8_ue8m0"), False, _UE8M0_FORMATS, name
        ),
        "grouped_mlp": TritonKernel(
            Deferred("experts", "grouped_mlp_ue8m0"), False, _UE8M0_FORMATS, name
        ),
    }


def invariant_kernels() -> dict[str, TritonKernel]:
    """By operation, those whose rows have the same bits in every batch; `triton`'s have not."""
    name = "triton-invariant"
    return {
        "linear_fp8": TritonKernel(Deferred("invariant", "linear_fp8"), True, _FP8_FORMATS, name),
        "grouped_mlp": TritonKernel(Deferred("invariant", "grouped_mlp"), True, _FP8_FORMATS, name),
        "mla_attention": TritonKernel(Deferred("invariant", "InvariantMLA"), True, name=name),
        "fuse_mtp": TritonKernel(
            Deferred("fuse", "fuse_mtp_invariant"),
            True,
            name=name,
            parts=_mtp_parts(name, ("triton",)),
        ),
        "fuse_layers": TritonKernel(
            Deferred("fuse", "fuse_layers_invariant"),
            True,
            name=name,
            parts=_parts(name, ("triton",)),
        ),
    }


def triton_kernels() -> dict[str, TritonKernel]:
    """By operation, those that are preferred."""
    return {
        "rms_norm": TritonKernel(Deferred("norm", "rms_norm"), True),
        "add_rms_norm": TritonKernel(Deferred("norm", "add_rms_norm"), True),
        "apply_rope": TritonKernel(Deferred("rope", "apply_rope"), True),
        "linear": TritonKernel(Deferred("dense", "linear"), True),
        "vocab_logits": TritonKernel(Deferred("dense", "vocab_logits"), True),
        "router_logits": TritonKernel(Deferred("dense", "router_logits"), True),
        "linear_fp8": TritonKernel(Deferred("linear", "linear_fp8"), False, _FP8_FORMATS),
        "quantize_fp8": TritonKernel(Deferred("quant", "quantize_fp8"), True),
        "swiglu": TritonKernel(Deferred("swiglu", "swiglu"), True),
        "route": TritonKernel(Deferred("router", "route"), True),
        "permute": TritonKernel(Deferred("permute", "permute"), True),
        "grouped_mlp": TritonKernel(Deferred("experts", "grouped_mlp"), False, _FP8_FORMATS),
        "unpermute": TritonKernel(Deferred("permute", "unpermute"), True),
        "write_latent": TritonKernel(Deferred("cache", "write_latent"), True),
        "read_latent": TritonKernel(Deferred("cache", "read_latent"), True),
        "merge_attention": TritonKernel(Deferred("merge", "merge_attention"), True),
        "mla_attention": TritonKernel(Deferred("mla", "TritonMLA"), False),
        "process_logits": TritonKernel(Deferred("logits", "process_logits"), True),
        "sample": TritonKernel(Deferred("sample", "sample"), True),
        "fuse_mtp": TritonKernel(
            Deferred("fuse", "fuse_mtp"), False, parts=_mtp_parts("triton", ("cublas", "triton"))
        ),
        "fuse_layers": TritonKernel(
            Deferred("fuse", "fuse_layers"), False, parts=_parts("triton", ("cublas", "triton"))
        ),
        "sample_shard": TritonKernel(Deferred("sample", "sample_shard"), True),
        "count_accepted": TritonKernel(Deferred("drafts", "count_accepted"), True),
        "token_logprobs": TritonKernel(Deferred("logprobs", "token_logprobs"), True),
    }


def missing(device: str) -> str | None:
    """Why Triton kernels cannot run on a device, or None."""
    if device != "cuda":
        return f"needs a CUDA device, not {device}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; the extra `gpu` has it"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < _MIN_CAPABILITY:
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        return f"needs compute capability 9.0 or later, not {capability}"
    return None
