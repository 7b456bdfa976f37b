// Sixteen float32 lanes in two AVX2 registers (with FMA and F16C).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

struct Lanes {
  __m256 low, high;
};

static inline Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline Lanes all(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
static inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
static inline Lanes load_some(const float* p, int64_t n) {
  float copy[16] = {};
  std::memcpy(copy, p, n * sizeof(float));
  return load(copy);
}
static inline void store_some(float* p, Lanes a, int64_t n) {
  float copy[16];
  store(copy, a);
  std::memcpy(p, copy, n * sizeof(float));
}

static inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
static inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
static inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
static inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
static inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
// The second operand where either is a NaN.
static inline Lanes larger(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
static inline Lanes smaller(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
static inline Lanes nearest(Lanes a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, mode), _mm256_round_ps(a.high, mode)};
}
// 2 ^ n for whole numbers n in [-126, 127].
static inline __m256 power_of_two(__m256 n) {
  __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
static inline Lanes power_of_two(Lanes n) { return {power_of_two(n.low), power_of_two(n.high)}; }
// Zero where a < b; NaNs stay.
static inline Lanes zero_below(Lanes a, Lanes b, Lanes value) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), value.low),
          _mm256_andnot_ps(_mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ), value.high)};
}

static inline __m256 widen_bfloat16(const uint16_t* p) {
  __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
}
static inline Lanes load_bfloat16(const uint16_t* p) { return {widen_bfloat16(p), widen_bfloat16(p + 8)}; }
static inline Lanes load_bfloat16_some(const uint16_t* p, int64_t n) {
  uint16_t copy[16] = {};
  std::memcpy(copy, p, n * sizeof(uint16_t));
  return load_bfloat16(copy);
}

constexpr float kFp8Factor = 256.0f;  // on what `load_fp8` makes of a value
constexpr bool kFp8KeepsNan = false;

// e4m3 has the fields of float16 with one exponent bit less: moved to float16's places it is the value
// over 2^8, subnormals included, and its NaN is 480 / 2^8.
static inline Lanes load_fp8(const uint8_t* p) {
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  __m256i high = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8);
  __m256i halves = _mm256_and_si256(_mm256_srai_epi16(high, 1), _mm256_set1_epi16(static_cast<short>(0xBFFF)));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
// `count` values of at most 64 from p on, zeros after them.
static inline void load_fp8(const uint8_t* p, int64_t count, Lanes* out) {
  uint8_t copy[64] = {};
  if (count < 64) p = static_cast<const uint8_t*>(std::memcpy(copy, p, count));
  for (int i = 0; i < 4; ++i) out[i] = load_fp8(p + 16 * i);
}
static inline bool any_fp8_nan(const uint8_t* p, int64_t n) {
  const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80)), ones = _mm256_set1_epi8(-1);
  __m256i found = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    found = _mm256_or_si256(found, _mm256_cmpeq_epi8(_mm256_or_si256(bytes, sign), ones));
  }
  bool any = _mm256_movemask_epi8(found) != 0;
  for (; i < n; ++i) any |= (p[i] | 0x80) == 0xFF;
  return any;
}

// The sum of the lanes, in the order ((i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1)).
static inline float fold(Lanes a) {
  __m256 eight = _mm256_add_ps(a.low, a.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline void fold4(Lanes a, Lanes b, Lanes c, Lanes d, float* out) {
  out[0] = fold(a), out[1] = fold(b), out[2] = fold(c), out[3] = fold(d);
}
