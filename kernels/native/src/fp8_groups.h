// e4m3 values in groups with a scale each, as kernels/reference/quant.py makes them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace leadline {

// To e4m3, to the nearest even; the value is within +-448 or NaN.
inline uint8_t to_fp8(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint8_t sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  bits &= 0x7FFFFFFF;
  if (bits > 0x7F800000) return sign | 0x7F;
  if (bits < 0x3C800000) {  // below 2^-6: a multiple of 2^-9
    return sign | static_cast<uint8_t>(std::nearbyint(std::fabs(value) * 512.0f));
  }
  bits += 0x7FFFF + (bits >> 20 & 1);
  return sign | static_cast<uint8_t>((bits >> 20) - (120u << 3));
}

// The smallest power of two that is at least x > 0; what is not finite stays.
inline float next_power_of_two(float x) {
  if (!std::isfinite(x)) return x;
  int exponent;
  const float fraction = std::frexp(x, &exponent);
  return std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
}

// Quantises a group; returns its scale, which is NaN if a value is.
inline float quantize_group(const float* values, int64_t count, bool power_of_two, uint8_t* out) {
  float largest = 0.0f;
  bool nan = false;
  for (int64_t k = 0; k < count; ++k) {
    nan |= values[k] != values[k];
    largest = std::fabs(values[k]) > largest ? std::fabs(values[k]) : largest;
  }
  float scale = largest / 448.0f;
  if (nan) scale = __builtin_nanf("");
  if (scale == 0.0f) scale = 1.0f;
  if (power_of_two) scale = next_power_of_two(scale);
  for (int64_t k = 0; k < count; ++k) {
    float value = values[k] / scale;
    if (value > 448.0f) value = 448.0f;
    if (value < -448.0f) value = -448.0f;
    out[k] = to_fp8(value);
  }
  return scale;
}

}  // namespace leadline
