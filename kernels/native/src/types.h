// What the three instruction-set builds of the kernels and their callers share: plain data only.
#pragma once

#include <cstdint>

namespace leadline {

enum Format : int32_t { kFloat32 = 0, kBFloat16 = 1, kFP8 = 2 };

constexpr int64_t kLanes = 16;         // float32 lanes of every sum, whatever the instruction set
constexpr int64_t kBlock = 128;        // rows and columns of an FP8 scale block
constexpr int64_t kBlockColumns = 16;  // output columns of a work item with few rows
constexpr int64_t kWideColumns = 32;   // and of one with many
constexpr int64_t kMostRows = 96;      // rows for which a weight is widened once,
constexpr int64_t kMostDepth = 1024;   // and columns of it at a time: both stay in a core's own cache

// A weight [rows, columns], columns contiguous. Python packs these eight fields, eight bytes each.
struct Weight {
  const void* data;
  int64_t format;
  int64_t columns;
  int64_t stride;       // elements from row to row
  const float* scale;   // FP8: one a block, rows `scale_stride` apart
  int64_t scale_stride;
  int64_t row_offset;   // place of the first row and column in their block
  int64_t column_offset;
};

// Float32 activations: rows of `padded` columns, those beyond the weight's being zero.
struct Activations {
  const float* data;
  int64_t rows;
  int64_t padded;
  int64_t stride;
};

// Room for a widened part of a weight, and for the sums of all lanes between its parts.
inline int64_t panel_floats(int64_t rows, int64_t columns, int64_t padded) {
  const int64_t together = rows < kMostRows ? rows : kMostRows;
  return padded <= kMostDepth ? columns * padded : columns * (kMostDepth + together * kLanes);
}

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What a tile of consecutive queries of one request sees of a page.
struct PageAttention {
  const float* keys;         // latent, then rotated key, of the page's slots
  int64_t stride;
  int64_t num_keys;          // slots before this one are seen by the tile's last query
  int64_t first_key;         // and not before this one
  int64_t first_query_keys;  // as many slots from the page's beginning are seen by the first query; each next
                             // query sees one more
  int64_t latent_rank;
  float scale;
};

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  // out[row, n - first] = sum over k of x[row, k] * w[n, k], for n in [first, last). `panel` has room for
  // `panel_floats` of as many columns.
  void (*product_block)(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                        int64_t out_stride, float* panel);
  // Copies one row to float32 and fills it up with zeros.
  void (*widen_row)(const void* row, int32_t format, int64_t columns, int64_t padded, float* out);
  // Rounds one row of float32 to its format, to the nearest even.
  void (*narrow_row)(const float* row, int64_t columns, int32_t format, void* out);
  // out = silu(gate) * up.
  void (*swiglu_row)(const float* gate, const float* up, int64_t columns, float* out);
  // out = x / rms(x) * weight; may be in place.
  void (*norm_row)(const float* x, const float* weight, int64_t columns, float eps, float* out);
  void (*sigmoid_row)(const float* x, int64_t columns, float* out);
  void (*softmax_row)(const float* x, int64_t columns, float* out);
  // out[row, c] += sum over d of a[row, d] * b[d, c]; b is float32 or bfloat16.
  void (*combine)(const float* a, int64_t a_stride, int64_t rows, int64_t depth, const Weight& b, float* out,
                  int64_t out_stride);
  // Takes one page into the running softmax (`top`, `total`, `out`) of num_queries * heads rows of q; `scores`
  // has room for as many rows of round_up(num_keys, kLanes), and rows of `out` for round_up(latent_rank, kLanes).
  void (*attend_page)(const PageAttention& page, int64_t num_queries, int64_t heads, const float* q,
                      int64_t q_stride, float* scores, float* top, float* total, float* out, int64_t out_stride);
  // One FP8 cache entry (latent_cache.py) to `padded` float32 values.
  void (*widen_fp8_entry)(const uint8_t* entry, int64_t latent_rank, int64_t rope, int64_t padded, float* out);
  // Noise of the 64 tokens from `first` on, a multiple of 4.
  void (*gumbel_noise)(uint64_t seed, uint32_t position, int64_t first, float* out);
  // Products and sums in registers alone, 384 operations a round.
  void (*multiply_alone)(int64_t rounds, float* out);
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace leadline
