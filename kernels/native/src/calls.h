// The functions that Python calls, for those that are made of others; each is explained where it is defined.
#pragma once

#include "common.h"

namespace leadline {

// Python packs these fields, eight bytes each. See `api.RouterConfig`.
struct Router {
  int64_t softmax, num_groups, num_top_groups, top_k, sum_of_two, renormalize;
  double scaling_factor;
};

// Python packs these fields, eight bytes each. Strides in elements; formats of types.h.
struct Attention {
  const void* q_nope;  // [T, H, N]
  int64_t q_nope_token, q_nope_head;
  const void* q_rope;  // [T, H, R]
  int64_t q_rope_token, q_rope_head;
  int64_t query_format;
  const void* pages;  // [.., page_size, width]; FP8: bytes, see latent_cache.py
  int64_t page_format, page_size, width;
  const int64_t* page_table;  // [B, ..]
  int64_t table_stride;
  const int64_t *query_lens, *seq_lens;  // [B]
  int64_t num_rows, num_tokens;
  const void* w_uk;  // [H, N, C]
  int64_t w_uk_format, w_uk_head, w_uk_row;
  const void* w_uv;  // [H, V, C]
  int64_t w_uv_format, w_uv_head, w_uv_row;
  int64_t heads, nope, rope, latent_rank, value;
  int64_t first_slot;
  double scale;
  void* out;  // [T, H, V] in the query's format
};

// Python packs these pointers, eight bytes each; one value for each row.
struct SamplingParameters {
  const float* temperature;
  const int64_t* top_k;
  const float *top_p, *min_p;
  const int64_t *seeds, *positions;
};

}  // namespace leadline

LEADLINE_API int leadline_linear(const void* x, int32_t x_format, int64_t rows, int64_t x_stride,
                                 const leadline::Weight* weight, int64_t outs, void* y, int32_t y_format,
                                 int num_threads);
LEADLINE_API int leadline_grouped_mlp(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                      const int64_t* counts, int64_t num_experts, const leadline::Weight* gate_up,
                                      int64_t gate_up_scales, const leadline::Weight* down, int64_t down_scales,
                                      void* y, int num_threads);
LEADLINE_API int leadline_rms_norm(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                   const void* residual, int64_t residual_stride, const void* weight,
                                   int32_t weight_format, int64_t columns, double eps, void* y, void* sum,
                                   int num_threads);
LEADLINE_API int leadline_rope(const void* x, int32_t format, int64_t rows, int64_t x_stride, int64_t head_stride,
                               int64_t heads, int64_t columns, const float* cosines, int64_t cosines_stride,
                               const float* sines, int64_t sines_stride, void* y, int num_threads);
LEADLINE_API int leadline_swiglu(const void* x, int32_t format, int64_t rows, int64_t x_stride, int64_t width,
                                 void* y, int num_threads);
LEADLINE_API int leadline_route(const float* logits, int64_t rows, int64_t stride, int64_t num_experts,
                                const float* bias, const void* packed, int64_t* ids, float* weights);
LEADLINE_API int leadline_permute(const void* x, int64_t row_bytes, int64_t stride_bytes, const int64_t* ids,
                                  int64_t num_tokens, int64_t top_k, int64_t num_experts, void* y, int64_t* order,
                                  int64_t* counts);
LEADLINE_API int leadline_unpermute(const void* rows, int32_t format, int64_t num_tokens, int64_t stride,
                                    int64_t columns, const int64_t* order, const float* weights, int64_t top_k,
                                    void* y);
LEADLINE_API int leadline_write_latent(const void* latents, int32_t format, int64_t num_tokens,
                                       int64_t latent_stride, int64_t latent_rank, const void* ropes,
                                       int64_t rope_stride, int64_t rope, const int64_t* slots, int64_t num_slots,
                                       void* pages, int32_t page_format, int64_t width);
LEADLINE_API int leadline_mla(const void* packed, int num_threads);
LEADLINE_API int leadline_sample(const float* logits, const float* adjusted, int64_t rows, int64_t stride,
                                 int64_t vocab, const void* packed, int32_t cuts, int64_t* ids, int num_threads);
