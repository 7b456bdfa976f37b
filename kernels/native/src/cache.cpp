// Entries of the paged latent cache, written and read; its formats are those of latent_cache.py.
#include <cstring>

#include "calls.h"
#include "fp8_groups.h"

namespace leadline {
namespace {

thread_local Scratch buffers;

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
      const int64_t count = smaller_of(kBlock, latent_rank - begin);
      const float scale = quantize_group(latent + begin, count, false, bytes + begin);
      std::memcpy(bytes + latent_rank + g * sizeof(float), &scale, sizeof(scale));
    }
    kernels->narrow_row(key, rope, kBFloat16, bytes + latent_rank + num_groups * sizeof(float));
  }
  return 0;
}

// Whole pages as float32: out[num_wanted, page_size, latent_rank + rope]. Returns 1, having written nothing, for a page
// that there is not.
LEADLINE_API int leadline_read_latent(const void* pages, int32_t page_format, int64_t num_pages, int64_t page_size,
                                      int64_t width, int64_t latent_rank, int64_t rope, const int64_t* page_ids,
                                      int64_t num_wanted, float* out, int num_threads) {
  for (int64_t i = 0; i < num_wanted; ++i)
    if (page_ids[i] < 0 || page_ids[i] >= num_pages) return 1;
  const int64_t columns = latent_rank + rope;
  share(num_wanted, threads_for(num_wanted * page_size * columns, num_threads), [&](int64_t i) {
    for (int64_t slot = 0; slot < page_size; ++slot) {
      const char* entry = at(pages, page_format, (page_ids[i] * page_size + slot) * width);
      float* to = out + (i * page_size + slot) * columns;
      if (page_format != kFP8) {
        kernels->widen_row(entry, page_format, columns, columns, to);
      } else {
        kernels->widen_fp8_entry(reinterpret_cast<const uint8_t*>(entry), latent_rank, rope, columns, to);
      }
    }
  });
  return 0;
}
