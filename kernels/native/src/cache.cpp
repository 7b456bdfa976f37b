// New entries of the paged latent cache; its formats are those of latent_cache.py.
#include <cmath>
#include <cstring>

#include "calls.h"

namespace leadline {
namespace {

thread_local Scratch buffers;

// To e4m3, to the nearest even; the value is within +-448 or NaN.
uint8_t to_fp8(float value) {
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

void write_fp8_group(const float* values, int64_t count, uint8_t* entry, uint8_t* scale_bytes) {
  float largest = 0.0f;
  bool nan = false;
  for (int64_t k = 0; k < count; ++k) {
    nan |= values[k] != values[k];
    largest = std::fabs(values[k]) > largest ? std::fabs(values[k]) : largest;
  }
  float scale = largest / 448.0f;
  if (nan) scale = __builtin_nanf("");
  if (scale == 0.0f) scale = 1.0f;
  std::memcpy(scale_bytes, &scale, sizeof(scale));
  for (int64_t k = 0; k < count; ++k) {
    float value = values[k] / scale;
    if (value > 448.0f) value = 448.0f;
    if (value < -448.0f) value = -448.0f;
    entry[k] = to_fp8(value);
  }
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// Latents [num_tokens, latent_rank] and rotated keys [num_tokens, rope] to their slots; -1 is skipped. Returns 1,
// having written nothing, for a slot that there is not.
LEADLINE_API int leadline_write_latent(const void* latents, int32_t format, int64_t num_tokens,
                                       int64_t latent_stride, int64_t latent_rank, const void* ropes,
                                       int64_t rope_stride, int64_t rope, const int64_t* slots, int64_t num_slots,
                                       void* pages, int32_t page_format, int64_t width) {
  for (int64_t i = 0; i < num_tokens; ++i)
    if (slots[i] >= num_slots) return 1;
  float *latent = buffers.get(latent_rank + rope), *key = latent + latent_rank;
  for (int64_t i = 0; i < num_tokens; ++i) {
    if (slots[i] < 0) continue;
    kernels->widen_row(at(latents, format, i * latent_stride), format, latent_rank, latent_rank, latent);
    kernels->widen_row(at(ropes, format, i * rope_stride), format, rope, rope, key);
    char* entry = const_cast<char*>(at(pages, page_format, slots[i] * width));
    if (page_format != kFP8) {
      kernels->narrow_row(latent, latent_rank + rope, page_format, entry);
      continue;
    }
    uint8_t* bytes = reinterpret_cast<uint8_t*>(entry);
    const int64_t num_groups = (latent_rank + kBlock - 1) / kBlock;
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t begin = g * kBlock;
      write_fp8_group(latent + begin, smaller_of(kBlock, latent_rank - begin), bytes + begin,
                      bytes + latent_rank + g * sizeof(float));
    }
    kernels->narrow_row(key, rope, kBFloat16, bytes + latent_rank + num_groups * sizeof(float));
  }
  return 0;
}
