"""Compiles DeepSeek-V3's launches for Hopper: `python -m leadline.kernels.triton.production`.

Prints a JSON line for each kernel: registers, shared memory, spills. Needs no GPU. Arguments name
the operations wanted.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leadline.kernels.api import Permutation
from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.decoder import PairingWeights
from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.sampling import AllowedTokens, Penalties, SamplingBatch
from leadline.kernels.triton.cache import read_latent, write_latent
from leadline.kernels.triton.compile import compile_launches
from leadline.kernels.triton.compress import write_compressed
from leadline.kernels.triton.dense import linear, router_logits, vocab_logits
from leadline.kernels.triton.drafts import count_accepted
from leadline.kernels.triton.experts import grouped_mlp
from leadline.kernels.triton.grouped_linear import grouped_linear
from leadline.kernels.triton.heads import multiply_heads
from leadline.kernels.triton.invariant import grouped_mlp as invariant_grouped_mlp
from leadline.kernels.triton.invariant import linear_fp8 as invariant_linear_fp8
from leadline.kernels.triton.linear import linear_fp8
from leadline.kernels.triton.logits import process_logits
from leadline.kernels.triton.logprobs import token_logprobs
from leadline.kernels.triton.merge import merge_attention
from leadline.kernels.triton.mla import TritonMLA
from leadline.kernels.triton.mtp import pair
from leadline.kernels.triton.norm import add_rms_norm, add_rms_norm_fp8, norm_rows, rms_norm
from leadline.kernels.triton.permute import permute, unpermute
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.rope import apply_rope
from leadline.kernels.triton.router import route
from leadline.kernels.triton.sample import sample, sample_shard
from leadline.kernels.triton.swiglu import swiglu, swiglu_fp8
from leadline.kernels.types import QuantTensor, RouterConfig

D, C, R, H, F, E, VOCAB = 7168, 512, 64, 128, 2048, 256, 129_280
PAGE_SIZE = 64
ROUTER = RouterConfig("sigmoid", 8, 4, 8, "top2_sum", True, 2.5)
BF16, FP8, INT64 = torch.bfloat16, torch.float8_e4m3fn, torch.int64
Launches = Iterator[tuple[str, Callable[[], Any]]]


def empty(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def weight(*shape: int) -> QuantTensor:
    """FP8 weights without memory."""
    blocks = (*shape[:-2], -(-shape[-2] // 128), shape[-1] // 128)
    return QuantTensor(empty(*shape, dtype=FP8), empty(*blocks, dtype=torch.float32))


def small_launches(m: int) -> Launches:
    """What moves memory, for m tokens."""
    x, w = empty(m, D), empty(D)
    scores, ids = empty(m, E, dtype=torch.float32), empty(m, 8, dtype=INT64)
    weights, bias = empty(m, 8, dtype=torch.float32), empty(E, dtype=torch.float32)
    permutation = Permutation(empty(8 * m, dtype=INT64), empty(E, dtype=INT64))
    angles = empty(m, R // 2, dtype=torch.float32)
    for scale_format in ("fp32", "ue8m0"):
        yield f"quantize_fp8 {scale_format} {m}", partial(quantize_fp8, x, scale_format)
    yield f"rms_norm {m}", lambda: rms_norm(x, w, 1e-6)
    yield f"rms_norm {m} latents", lambda: rms_norm(empty(m, C + R)[:, :C], empty(C), 1e-6)
    yield f"add_rms_norm {m}", lambda: add_rms_norm(x, x, w, 1e-6)
    yield f"add_rms_norm_fp8 {m}", lambda: add_rms_norm_fp8(x, x, w, 1e-6)
    yield f"norm_rows {m} both", lambda: norm_rows(x, x, w, 1e-6, scale_format="fp32")
    pairing = PairingWeights(empty(VOCAB, D), w, w, empty(D, 2 * D), empty(VOCAB, D))
    yield f"pair {m}", lambda: pair(pairing, x, empty(m, dtype=INT64), 1e-6)
    yield f"swiglu {m}", lambda: swiglu(empty(m, 2 * F))
    yield f"swiglu_fp8 {m}", lambda: swiglu_fp8(empty(m, 2 * F))
    yield f"apply_rope {m}", lambda: apply_rope(empty(m, H, 192)[..., 128:], angles, angles)
    yield f"apply_rope {m} key", lambda: apply_rope(empty(m, 1, R), angles, angles)
    yield f"route {m}", lambda: route(scores, bias, ROUTER)
    yield f"permute {m}", lambda: permute(x, ids, E)
    yield f"unpermute {m}", lambda: unpermute(empty(8 * m, D), permutation, weights)
    halves = empty(m, H, 128, dtype=torch.float32), empty(m, H, dtype=torch.float32)
    yield f"merge_attention {m}", lambda: merge_attention(*halves, *halves)


def sampling_launches(m: int) -> Launches:
    """From logits to tokens, for m rows."""
    logits, ids = empty(m, VOCAB, dtype=torch.float32), empty(m, dtype=INT64)
    yield f"sample {m}", lambda: sample(logits, batch(m))
    yield f"sample_shard {m}", lambda: sample_shard(logits[:, : VOCAB // 8], batch(m), 16)
    yield f"process_logits {m}", lambda: process_logits(logits, ruled_batch(m))
    yield f"token_logprobs {m}", lambda: token_logprobs(logits, ids, 20)
    drafts = empty(m, 3, dtype=INT64)
    yield f"count_accepted {m}", lambda: count_accepted(drafts, drafts, ids)


def ruled_batch(m: int) -> SamplingBatch:
    """Cuts, and all rules that have kernels."""
    sampling, row, real = batch(m), empty(m, dtype=INT64), empty(m, dtype=torch.float32)
    counts = empty(m, VOCAB, dtype=torch.int32)
    sampling.no_cuts = False
    sampling.forced_B = row
    sampling.allowed = AllowedTokens(row, empty(m, VOCAB // 32, dtype=torch.int32))
    in_prompt = empty(m, VOCAB, dtype=torch.bool)
    sampling.penalties = Penalties(row, real, real, real, counts, in_prompt)
    return sampling


def batch(m: int) -> SamplingBatch:
    """Sampling without cuts."""
    real, whole = empty(m, dtype=torch.float32), empty(m, dtype=INT64)
    return SamplingBatch(
        temperature_B=real,
        top_k_B=whole,
        top_p_B=real,
        min_p_B=real,
        seeds_B=whole,
        positions_B=whole,
        all_greedy=False,
        no_cuts=True,
    )


def linear_launches(m: int) -> Launches:
    """Dense FP8 products: `q_a_proj` with `kv_a_proj`, and `o_proj`; those of other weights."""
    gate = empty(E, D, dtype=torch.float32)
    yield f"router_logits {m}", lambda: router_logits(empty(m, D), gate)
    yield f"vocab_logits {m}", lambda: vocab_logits(empty(m, D), empty(VOCAB, D))
    yield f"linear {m}", lambda: linear(empty(m, 2 * D), empty(D, 2 * D))
    invariant = partial(invariant_linear_fp8, empty(m, D), weight(2112, D))
    yield f"linear_fp8 invariant {m}x2112x{D}", invariant
    yield f"heads {m} absorb", lambda: multiply_heads(empty(m, H, 192)[..., :128], empty(H, 128, C))
    yield f"heads {m} up", lambda: multiply_heads(empty(m, H, C), empty(H, 128, C).mT)
    for n, k in ((2112, D), (D, H * 128)):
        yield f"linear_fp8 {m}x{n}x{k}", partial(linear_fp8, empty(m, k), weight(n, k))


def expert_launches(m: int) -> Launches:
    """Grouped FP8 products of all experts of one layer; of 32 experts with m places each."""
    experts = weight(E, 2 * F, D), weight(E, D, F)
    counts = empty(E, dtype=INT64)
    yield f"grouped_mlp {m} tokens", lambda: grouped_mlp(empty(8 * m, D), counts, *experts)
    invariant = partial(invariant_grouped_mlp, empty(8 * m, D), counts, *experts)
    yield f"grouped_mlp invariant {m} tokens", invariant
    if m == 2048:
        rows = empty(32 * m, D, dtype=FP8), empty(32 * m, D // 128, dtype=torch.float32)
        local, some = weight(32, 2 * F, D), empty(32, dtype=INT64)
        yield f"grouped_places {m}", lambda: grouped_linear(*rows, some, local, BF16, m)


def attention_launches(dtype: str) -> Launches:
    """Writing, reading, decode (split and whole, 128 heads and 16) and prefill."""
    layout = LatentLayout(C, R, dtype)
    pages = empty(4096, PAGE_SIZE, layout.width, dtype=layout.torch_dtype)
    cache = LatentCacheLayer(pages, layout)
    entry = empty(64, C), empty(64, R), empty(64, dtype=INT64)
    yield f"write_latent {dtype}", lambda: write_latent(cache, *entry)
    yield f"read_latent {dtype}", lambda: read_latent(cache, empty(8, dtype=INT64))

    angles = empty(64, R // 2, dtype=torch.float32)
    compressed = cache, empty(64, C + R), empty(C), 1e-6, angles, angles, empty(64, dtype=INT64)
    yield f"write_compressed {dtype}", lambda: write_compressed(*compressed)

    def attend(heads: int, rows: int, cached: int, new: int) -> None:
        meta = AttentionMeta(
            [new] * rows,
            [cached + new] * rows,
            empty(rows, (cached + new) // PAGE_SIZE + 1, dtype=INT64),
            empty(rows * new, dtype=INT64),
            empty(rows * new, dtype=INT64),
        )
        attention = TritonMLA(scale=0.1, page_size=PAGE_SIZE)
        attention.plan(meta)
        query = empty(rows * new, heads, 128), empty(rows * new, heads, R)
        projection = MLAProjection(empty(heads, 128, C), empty(heads, 128, C))
        attention.run(*query, cache, projection, first_slot=0)

    for heads, rows, cached, new in (
        (H, 1, 65_000, 1),
        (H, 128, 100, 2),
        (16, 1, 9000, 1),
        (16, 8, 9000, 2),
        (16, 8, 9000, 4),
        (H, 1, 4096, 2048),
    ):
        name = f"mla_attention {dtype} {heads} heads {rows}x{cached}+{new}"
        yield name, partial(attend, heads, rows, cached, new)


def all_launches() -> Launches:
    """Decode and prefill, one token among them: Triton compiles for a size of 1 apart."""
    for m in (1, 4096):
        yield from small_launches(m)
        yield from sampling_launches(m)
    for m in (1, 32, 64, 4096):
        yield from linear_launches(m)
    for m in (1, 1024, 2048, 16_384):
        yield from expert_launches(m)
    for dtype in ("bfloat16", "fp8"):
        yield from attention_launches(dtype)


if __name__ == "__main__":
    wanted = set(sys.argv[1:])
    for name, call in all_launches():
        if not wanted or name.split()[0] in wanted:
            for resources in compile_launches(name, call):
                print(json.dumps(asdict(resources)), flush=True)  # noqa: T201
