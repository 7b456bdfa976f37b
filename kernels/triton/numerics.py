"""Casts and products that mean the same on a GPU and in Triton's interpreter.

The interpreter truncates where the hardware rounds to nearest even, casts to FP8 without saturation
and multiplies the bits of bfloat16 operands. The branches on `INTERPRETED` are gone from compiled
kernels.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
_ALL_NAN = tl.constexpr(tl.PropagateNan.ALL)
_INFINITY = tl.constexpr(0x7F800000)  # bits of a float32


@triton.jit
def abs_bits(x):
    """Bits of |x| of float32 x: they order as the values do, and NaN comes last."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _round_to_bfloat16(x):
    bits = x.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
    rounded = tl.where(abs_bits(x) > _INFINITY, bits | 0x400000, rounded)
    return rounded.to(tl.float32, bitcast=True)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Float32 x in `dtype`, rounded to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:
        x = _round_to_bfloat16(x)
    return x.to(dtype)


@triton.jit
def _e4m3_by_bits(x):
    """|x| <= 448 or NaN."""
    bits = abs_bits(x)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    scaled = bits.to(tl.float32, bitcast=True) * 512.0
    subnormal = ((scaled + 8388608.0) - 8388608.0).to(tl.int32)
    rounded = tl.where(bits < 0x3C800000, subnormal, normal)  # 2^-6, the smallest normal number
    rounded = tl.where(bits > _INFINITY, 0x7F, rounded)
    sign = (x.to(tl.int32, bitcast=True) >> 24) & 0x80
    return (rounded | sign).to(tl.uint8).to(tl.float8e4nv, bitcast=True)


@triton.jit
def to_e4m3(x):
    """Float32 x in e4m3: to nearest even, saturating at 448; NaN stays NaN."""
    x = tl.clamp(x, -448.0, 448.0, propagate_nan=_ALL_NAN)
    if INTERPRETED:
        return _e4m3_by_bits(x)
    return x.to(tl.float8e4nv)


@triton.jit
def dot(a, b):
    """Product of two tiles, float32; float32 operands are not rounded to TF32."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) of float32 x."""
    return tl.div_rn(1.0, 1.0 + tl.exp(-x))


@triton.jit
def _next_power_of_two(x):
    """The smallest power of two that is at least x > 0; what is not finite stays as it is."""
    is_subnormal = abs_bits(x) < 0x800000
    x_normal = tl.where(is_subnormal, x * 4294967296.0, x)
    bits = (x_normal.to(tl.int32, bitcast=True) + 0x7FFFFF) & _INFINITY
    power = bits.to(tl.float32, bitcast=True)
    power = tl.where(is_subnormal, power * 2.3283064365386963e-10, power)
    return tl.where(abs_bits(x) >= _INFINITY, x, power)


@triton.jit
def quantize_groups(x_G128, ue8m0: tl.constexpr):
    """(e4m3 values, float32 scales) of float32 groups [G, 128]; see `api.QuantizeFP8`."""
    amax = tl.max(abs_bits(x_G128), axis=1).to(tl.float32, bitcast=True)
    scales = tl.div_rn(amax, 448.0)
    scales = tl.where(scales == 0, 1.0, scales)
    if ue8m0:
        scales = _next_power_of_two(scales)
    return to_e4m3(tl.div_rn(x_G128, tl.expand_dims(scales, 1))), scales
