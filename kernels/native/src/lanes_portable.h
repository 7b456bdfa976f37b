// Sixteen float32 lanes in whatever registers the compiler has for GNU vectors.
#pragma once

#include <cstdint>
#include <cstring>

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));

struct Lanes {
  Floats v;
};

static inline Lanes zero() { return {Floats{}}; }
static inline Lanes all(float a) { return {Floats{} + a}; }
static inline Lanes load_some(const float* p, int64_t n) {
  Lanes a = zero();
  std::memcpy(&a.v, p, n * sizeof(float));
  return a;
}
static inline void store_some(float* p, Lanes a, int64_t n) { std::memcpy(p, &a.v, n * sizeof(float)); }
static inline Lanes load(const float* p) { return load_some(p, 16); }
static inline void store(float* p, Lanes a) { store_some(p, a, 16); }

static inline Lanes operator+(Lanes a, Lanes b) { return {a.v + b.v}; }
static inline Lanes operator-(Lanes a, Lanes b) { return {a.v - b.v}; }
static inline Lanes operator*(Lanes a, Lanes b) { return {a.v * b.v}; }
static inline Lanes operator/(Lanes a, Lanes b) { return {a.v / b.v}; }
static inline Lanes fma(Lanes a, Lanes b, Lanes c) {
#if defined(__FP_FAST_FMAF)
  for (int i = 0; i < 16; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
#else
  return {a.v * b.v + c.v};
#endif
}
// The second operand where either is a NaN.
static inline Lanes larger(Lanes a, Lanes b) { return {a.v > b.v ? a.v : b.v}; }
static inline Lanes smaller(Lanes a, Lanes b) { return {a.v < b.v ? a.v : b.v}; }
// For numbers below 2^22.
static inline Lanes nearest(Lanes a) {
  const Lanes shift = all(12582912.0f);  // 1.5 * 2^23: sums near it have no fraction
  return (a + shift) - shift;
}
// 2 ^ n for whole numbers n in [-126, 127].
static inline Lanes power_of_two(Lanes n) {
  Ints bits = (__builtin_convertvector(n.v, Ints) + 127) << 23;
  Lanes a;
  std::memcpy(&a.v, &bits, sizeof(bits));
  return a;
}
// Zero where a < b; NaNs stay.
static inline Lanes zero_below(Lanes a, Lanes b, Lanes value) { return {a.v < b.v ? Floats{} : value.v}; }

static inline Lanes load_bfloat16_some(const uint16_t* p, int64_t n) {
  Ints bits{};
  for (int64_t i = 0; i < n; ++i) bits[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16);
  Lanes a;
  std::memcpy(&a.v, &bits, sizeof(bits));
  return a;
}
static inline Lanes load_bfloat16(const uint16_t* p) { return load_bfloat16_some(p, 16); }

constexpr float kFp8Factor = 1.0f;  // on what `load_fp8` makes of a value
constexpr bool kFp8KeepsNan = false;

static inline float fp8_value(uint8_t byte) {
  int32_t exponent = byte >> 3 & 15, mantissa = byte & 7;
  float value = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9f
                              : static_cast<float>(8 + mantissa) * 0x1p-10f * static_cast<float>(1 << exponent);
  return byte & 0x80 ? -value : value;
}
// `count` values of at most 64 from p on, zeros after them; NaN becomes 480.
static inline void load_fp8(const uint8_t* p, int64_t count, Lanes* out) {
  for (int i = 0; i < 64; ++i) out[i / 16].v[i % 16] = i < count ? fp8_value(p[i]) : 0.0f;
}
static inline bool any_fp8_nan(const uint8_t* p, int64_t n) {
  bool any = false;
  for (int64_t i = 0; i < n; ++i) any |= (p[i] | 0x80) == 0xFF;
  return any;
}

// The sum of the lanes, in the order ((i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1)).
static inline float fold(Lanes a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
  return a.v[0];
}
static inline void fold4(Lanes a, Lanes b, Lanes c, Lanes d, float* out) {
  out[0] = fold(a), out[1] = fold(b), out[2] = fold(c), out[3] = fold(d);
}
