"""The launches of DeepSeek-V3 on Hopper: `python -m leadline.kernels.triton.production`.

One JSON line a kernel: registers, shared memory, spills. Needs no GPU.
"""

from typing import Any

import torch

from leadline.kernels.triton import (
    cache,
    grouped_linear,
    linear_large,
    linear_small,
    mla_decode,
    mla_prefill,
    norm,
    permute,
    quant,
    rope,
    router,
    sample,
    swiglu,
)
from leadline.kernels.triton.compile import Case, main

Arguments = dict[str, Any]

D, C, R, H, F, E = 7168, 512, 64, 128, 2048, 256


def small_cases() -> list[Case]:
    """Kernels that move memory."""
    quantize: Arguments = {
        "x_ptr": "*bf16",
        "q_ptr": "*fp8e4nv",
        "scales_ptr": "*fp32",
        "groups": 8,
    }
    quantize |= {"x_stride": D, "num_columns": D, "num_groups": D // 128}
    normed: Arguments = {
        "x_ptr": "*bf16",
        "residual_ptr": "*bf16",
        "weight_ptr": "*bf16",
        "sum_ptr": "*bf16",
    }
    normed |= {"scales_ptr": "*fp32", "x_stride": D, "residual_stride": D, "num_columns": D}
    normed |= {"num_groups": D // 128, "eps": 1e-6, "groups": 64}
    plain = {"add": False, "quantize": False, "ue8m0": False, "y_ptr": "*bf16"}
    fused = {"add": True, "quantize": True, "ue8m0": True, "y_ptr": "*fp8e4nv"}
    gated: Arguments = {
        "x_ptr": "*bf16",
        "scales_ptr": "*fp32",
        "x_stride": 2 * F,
        "num_columns": F,
    }
    gated |= {"num_groups": F // 128, "groups": 8}
    rotated: Arguments = {
        "x_ptr": "*bf16",
        "cos_ptr": "*fp32",
        "sin_ptr": "*fp32",
        "y_ptr": "*bf16",
    }
    rotated |= {"x_stride_t": H * 192, "x_stride_h": 192, "angle_stride": 32, "num_heads": H}
    rotated |= {"num_columns": R, "heads": 16, "columns": 64}
    entry: Arguments = {"num_latent": C, "num_rope": R, "groups": 4, "rope_columns": 64}
    written = entry | {"latent_ptr": "*bf16", "rope_ptr": "*bf16", "slots_ptr": "*i64"}
    written |= {"latent_stride": C, "rope_stride": R}
    read = entry | {"page_ids_ptr": "*i64", "y_ptr": "*fp32", "page_size": 64}
    bf16 = {"pages_ptr": "*bf16", "slot_width": C + R, "fp8": False}
    fp8 = {"pages_ptr": "*u8", "slot_width": 656, "fp8": True}
    return [
        Case("quantize_fp8", quant.quantize_kernel, quantize | {"ue8m0": False}),
        Case("quantize_fp8_ue8m0", quant.quantize_kernel, quantize | {"ue8m0": True}),
        Case("rms_norm", norm.norm_kernel, normed | plain, num_warps=8),
        Case("add_rms_norm", norm.norm_kernel, normed | plain | {"add": True}, num_warps=8),
        Case("add_rms_norm_fp8", norm.norm_kernel, normed | fused, num_warps=8),
        Case("swiglu", swiglu.swiglu_kernel, gated | plain),
        Case("swiglu_fp8", swiglu.swiglu_kernel, gated | fused),
        Case("apply_rope", rope.rope_kernel, rotated, num_warps=2),
        Case("write_latent_bf16", cache.write_kernel, written | bf16, num_warps=2),
        Case("write_latent_fp8", cache.write_kernel, written | fp8, num_warps=2),
        Case("read_latent_bf16", cache.read_kernel, read | bf16, num_warps=2),
        Case("read_latent_fp8", cache.read_kernel, read | fp8, num_warps=2),
    ]


def _tiles(rows: int) -> str:
    return f"tensordesc<fp8e4nv[{rows}, 128]>"


def linear_cases() -> list[Case]:
    """Dense FP8 products; shapes of `q_a_proj` with `kv_a_proj`, and of `o_proj`."""
    common: Arguments = {"x_scales_ptr": "*fp32", "w_scales_ptr": "*fp32", "row_offset": 0}
    few = common | {"x_ptr": "*fp8e4nv", "w_ptr": "*fp8e4nv", "num_tokens": 64, "block_n": 128}
    narrow: Arguments = {"num_rows": 2112, "num_columns": D, "w_stride": D, "num_blocks": 56}
    narrow |= {"w_scales_stride": 56, "blocks_per_part": 8, "y_ptr": "*fp32"}
    wide: Arguments = {"num_rows": D, "num_columns": H * 128, "w_stride": H * 128}
    wide |= {"num_blocks": 128, "w_scales_stride": 128, "blocks_per_part": 128, "y_ptr": "*bf16"}
    many = common | {"y_ptr": "*bf16", "num_tokens": 4096, "num_programs": 132, "band": 8}
    many |= {"x_tiles": _tiles(128), "w_tiles": _tiles(128), "block_t": 128, "block_n": 128}
    cases = [
        Case(
            f"linear_fp8_{tokens}x{shape['num_rows']}",
            linear_small.small_kernel,
            few | shape | {"block_t": tokens},
            num_stages=4,
        )
        for tokens in (16, 32, 64)
        for shape in (narrow, wide)
    ]
    sums: Arguments = {"parts_ptr": "*fp32", "y_ptr": "*bf16", "size": 64 * 2112, "num_parts": 7}
    return [
        *cases,
        Case("linear_fp8_sum", linear_small.sum_kernel, sums | {"block": 1024}),
        Case(
            "linear_fp8_4096x2112",
            linear_large.large_kernel,
            many | narrow | {"y_ptr": "*bf16"},
            8,
            4,
        ),
        Case("linear_fp8_4096x7168", linear_large.large_kernel, many | wide, 8, 4),
    ]


def expert_cases() -> list[Case]:
    """Routing among 256 experts, and their products."""
    routed: Arguments = {"logits_ptr": "*fp32", "bias_ptr": "*fp32", "ids_ptr": "*i64"}
    routed |= {"weights_ptr": "*fp32", "logits_stride": E, "scaling_factor": 2.5, "num_experts": E}
    routed |= {"has_bias": True, "use_sigmoid": True, "num_groups": 8, "num_top_groups": 4}
    routed |= {"top2_sum": True, "top_k": 8, "renormalize": True, "groups": 8, "width": 32}
    sorted_: Arguments = {"ids_ptr": "*i64", "part_counts_ptr": "*i32", "num_experts": E}
    sorted_ |= {"order_ptr": "*i64", "counts_ptr": "*i64", "num_choices": 32768, "num_parts": 64}
    sorted_ |= {"part_size": 512, "chunk": 64, "experts": E}
    moved: Arguments = {"x_ptr": "*bf16", "y_ptr": "*bf16", "order_ptr": "*i64", "x_stride": D}
    moved |= {"num_columns": D, "top_k": 8, "block": 1024, "places_ptr": "*i32"}
    moved |= {"weights_ptr": "*fp32", "sums_ptr": "*bf16"}
    grouped: Arguments = {"x_ptr": "*fp8e4nv", "x_scales_ptr": "*fp32", "w_scales_ptr": "*fp32"}
    grouped |= {"w_tiles": _tiles(128), "counts_ptr": "*i64", "y_ptr": "*bf16", "num_experts": E}
    grouped |= {"num_rows": 2 * F, "num_columns": D, "num_blocks": 56, "row_offset": 0}
    grouped |= {"w_scales_stride_e": 32 * 56, "w_scales_stride_n": 56, "rows_of_expert": 256}
    grouped |= {"num_programs": 132, "experts": E, "block_n": 128}
    kernel = grouped_linear.grouped_kernel
    products = [
        Case(
            f"grouped_{'masked' if masked else 'contiguous'}_{tokens}",
            kernel,
            grouped | {"masked": masked, "block_t": tokens, "swap": tokens <= 32},
            num_warps=4 if tokens <= 32 else 8,
            num_stages=4,
        )
        for tokens, masked in ((16, False), (32, False), (64, False), (128, False), (128, True))
    ]
    return [
        Case("route", router.route_kernel, routed | {"choices": 8}, num_warps=1),
        Case("permute_count", permute.count_kernel, sorted_, num_warps=8),
        Case("permute_place", permute.place_kernel, sorted_, num_warps=8),
        Case("permute_gather", permute.gather_kernel, moved),
        Case("unpermute", permute.combine_kernel, moved),
        *products,
    ]


def attention_cases() -> list[Case]:
    """Absorbed decode of 128 heads and of 16, and expanded prefill."""
    decode: Arguments = {"q_latent_ptr": "*bf16", "q_rope_ptr": "*bf16", "page_table_ptr": "*i64"}
    decode |= {"items_ptr": "*i32", "lse_ptr": "*fp32", "table_stride": 256, "page_size": 64}
    decode |= {"first_slot": 0, "scale": 0.1, "num_heads": H, "num_latent": C, "num_rope": R}
    decode |= {"rope_columns": 64, "block_c": C, "block_s": mla_decode.KEYS[torch.bfloat16]}
    layouts: dict[str, Arguments] = {
        "bf16": {"pages_ptr": "*bf16", "slot_width": C + R, "fp8": False},
        "fp8": {"pages_ptr": "*u8", "slot_width": 656, "fp8": True},
    }
    cases = [
        Case(
            f"mla_decode_{layout}_{tile_size}{'_split' if split else ''}",
            mla_decode.decode_kernel,
            decode
            | layouts[layout]
            | {"split": split, "tile_size": tile_size, "o_ptr": "*fp32" if split else "*bf16"},
            num_warps=8,
            num_stages=2,
        )
        for layout in layouts
        for tile_size, split in ((64, True), (64, False), (16, True))
    ]
    combine: Arguments = {"parts_ptr": "*fp32", "lse_ptr": "*fp32", "tiles_ptr": "*i32"}
    combine |= {"o_ptr": "*bf16", "num_latent": C, "tile_size": 64, "block_c": C}
    prefill: Arguments = {"q_nope_ptr": "*bf16", "q_rope_ptr": "*bf16", "k_nope_ptr": "*bf16"}
    prefill |= {"k_rope_ptr": "*bf16", "v_ptr": "*bf16", "tiles_ptr": "*i32", "o_ptr": "*fp32"}
    prefill |= {"lse_ptr": "*fp32", "first_slot": 0, "scale": 0.1, "num_heads": H, "num_rope": R}
    prefill |= {"k_rope_stride": C + R, "num_nope": 128, "num_value": 128, "nope_columns": 128}
    prefill |= {
        "rope_columns": 64,
        "value_columns": 128,
        "block_s": mla_prefill.KEYS[torch.bfloat16],
    }
    prefill |= {"tile_size": mla_prefill.QUERIES[torch.bfloat16]}
    return [
        *cases,
        Case("mla_combine", mla_decode.combine_kernel, combine),
        Case("mla_prefill", mla_prefill.prefill_kernel, prefill, num_warps=8, num_stages=2),
    ]


def sampling_cases() -> list[Case]:
    """A vocabulary of 129,280 tokens."""
    sampled: Arguments = {"logits_ptr": "*fp32", "temperatures_ptr": "*fp32", "seeds_ptr": "*i64"}
    sampled |= {"positions_ptr": "*i64", "values_ptr": "*fp32", "ids_ptr": "*i32"}
    sampled |= {"logits_stride": 129_280, "vocab_size": 129_280, "part_size": 4096, "divide": True}
    return [Case("sample", sample.sample_kernel, sampled | {"block": 4096}, num_warps=8)]


def all_cases() -> list[Case]:
    """Every launch."""
    return small_cases() + linear_cases() + expert_cases() + attention_cases() + sampling_cases()


if __name__ == "__main__":
    main(all_cases())
