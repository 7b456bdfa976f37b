// Sixteen float32 lanes in one AVX-512 register.
#pragma once

#include <immintrin.h>

#include <cstdint>

struct Lanes {
  __m512 v;
};

static inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

static inline Lanes zero() { return {_mm512_setzero_ps()}; }
static inline Lanes all(float a) { return {_mm512_set1_ps(a)}; }
static inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline Lanes load_some(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
static inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
static inline void store_some(float* p, Lanes a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a.v); }

static inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The second operand where either is a NaN.
static inline Lanes larger(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline Lanes smaller(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline Lanes nearest(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2 ^ n for whole numbers n in [-126, 127].
static inline Lanes power_of_two(Lanes n) {
  __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
// Zero where a < b; NaNs stay.
static inline Lanes zero_below(Lanes a, Lanes b, Lanes value) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), value.v)};
}

static inline Lanes from_bfloat16(__m256i halves) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
static inline Lanes load_bfloat16(const uint16_t* p) {
  return from_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline Lanes load_bfloat16_some(const uint16_t* p, int64_t n) {
  return from_bfloat16(_mm256_maskz_loadu_epi16(first(n), p));
}

// Low and high byte of the bfloat16 value of each e4m3 byte without its sign; all of them are exact.
struct Fp8Tables {
  alignas(64) uint8_t low[128], high[128];
};
static constexpr Fp8Tables make_fp8_tables() {
  Fp8Tables tables{};
  for (int byte = 0; byte < 128; ++byte) {
    int exponent = byte >> 3, mantissa = byte & 7, bits = 0;
    if (byte == 0x7F) {
      bits = 0x7FC0;  // NaN
    } else if (exponent > 0) {
      bits = (exponent + 120) << 7 | mantissa << 4;
    } else if (mantissa > 0) {  // mantissa * 2 ^ -9
      int top = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
      bits = (127 - 9 + top) << 7 | ((mantissa << (7 - top)) & 0x7F);
    }
    tables.low[byte] = static_cast<uint8_t>(bits);
    tables.high[byte] = static_cast<uint8_t>(bits >> 8);
  }
  return tables;
}
static constexpr Fp8Tables kFp8Tables = make_fp8_tables();
constexpr float kFp8Factor = 1.0f;  // on what `load_fp8` makes of a value
constexpr bool kFp8KeepsNan = true;

// The bytes' order for `load_fp8`: what it takes apart comes out as sixteen values in a row.
struct ByteOrder {
  alignas(64) uint8_t places[64];
};
static constexpr ByteOrder make_fp8_order() {
  ByteOrder order{};
  for (int lane = 0; lane < 16; ++lane)
    for (int out = 0; out < 4; ++out)
      order.places[lane / 4 * 16 + out / 2 * 8 + lane % 4 * 2 + out % 2] = static_cast<uint8_t>(16 * out + lane);
  return order;
}
static constexpr ByteOrder kFp8Order = make_fp8_order();

// `count` values of at most 64 from p on, zeros after them.
static inline void load_fp8(const uint8_t* p, int64_t count, Lanes* out) {
  __m512i bytes = count >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8((1ull << count) - 1, p);
  bytes = _mm512_permutexvar_epi8(_mm512_load_si512(kFp8Order.places), bytes);
  __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.low), bytes,
                                         _mm512_load_si512(kFp8Tables.low + 64));
  __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.high), bytes,
                                          _mm512_load_si512(kFp8Tables.high + 64));
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  high = _mm512_ternarylogic_epi32(high, bytes, sign, 0xF8);  // high | (bytes & sign)
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  __m512i pairs = _mm512_unpacklo_epi8(low, high);  // two bfloat16 values in each lane
  out[0].v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  out[1].v = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
  pairs = _mm512_unpackhi_epi8(low, high);
  out[2].v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  out[3].v = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
}
static inline bool any_fp8_nan(const uint8_t*, int64_t) { return false; }  // never asked: see kFp8KeepsNan

// The sum of the lanes, in the order ((i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1)).
static inline float fold(Lanes a) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
// The halves of p and q added, side by side.
static inline __m512 add_halves(__m512 p, __m512 q) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x44), _mm512_shuffle_f32x4(p, q, 0xEE));
}
// `fold` of each of four, the same sums in the same order.
static inline void fold4(Lanes a, Lanes b, Lanes c, Lanes d, float* out) {
  __m512 ab = add_halves(a.v, b.v), cd = add_halves(c.v, d.v);
  __m512 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  __m512 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4E));
  __m512 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xB1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, one)));
}
