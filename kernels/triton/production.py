"""The launches of DeepSeek-V3 on Hopper: `python -m leadline.kernels.triton.production`.

One JSON line a kernel: registers, shared memory, spills. Needs no GPU.
"""

from typing import Any

from leadline.kernels.triton import cache, linear_large, linear_small, norm, quant, rope, swiglu
from leadline.kernels.triton.compile import Case, main

Arguments = dict[str, Any]

D, Q, C, R, H, F = 7168, 1536, 512, 64, 128, 2048


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


def all_cases() -> list[Case]:
    """Every launch."""
    return small_cases() + linear_cases()


if __name__ == "__main__":
    main(all_cases())
