// Latent attention over the paged cache, absorbed (DeepSeek-V2, section 2.1.2).
//
// Every query is reduced page after page in one order (online softmax; Milakov and Gimelshein, 2018), and a
// head knows nothing of its neighbours: how queries and heads are dealt to threads changes no bit.
#include <vector>

#include "calls.h"

namespace leadline {
namespace {

constexpr int64_t kQueryHeads = 32;     // query heads that go over the pages together
constexpr int64_t kQueriesAtOnce = 24;  // tokens whose heads are projected together

thread_local Scratch absorbed, summed, copied, states;

// Consecutive queries of one request, and some of their heads.
struct Tile {
  int64_t row, token, position, num_queries, head, num_heads;
};

std::vector<Tile> make_tiles(const Attention& a, int num_threads) {
  int64_t heads = smaller_of(a.heads, kQueryHeads);
  int64_t queries = kQueryHeads / heads;
  // A lone query is shared by its heads.
  if (a.num_tokens < num_threads) heads = smaller_of(heads, (a.heads + num_threads - 1) / num_threads);
  std::vector<Tile> tiles;
  for (int64_t row = 0, token = 0; row < a.num_rows; token += a.query_lens[row++]) {
    const int64_t start = a.seq_lens[row] - a.query_lens[row];
    for (int64_t i = 0; i < a.query_lens[row]; i += queries)
      for (int64_t head = 0; head < a.heads; head += heads)
        tiles.push_back({row, token + i, start + i, smaller_of(queries, a.query_lens[row] - i), head,
                         smaller_of(heads, a.heads - head)});
  }
  return tiles;
}

// A page's first `count` entries as float32 rows of `padded`: where they are if they are that already.
const float* page_entries(const Attention& a, int64_t page, int64_t count, int64_t padded, float* copy) {
  const int64_t first = page * a.page_size * a.width;
  if (a.page_format == kFloat32 && padded == a.width) return static_cast<const float*>(a.pages) + first;
  for (int64_t slot = 0; slot < count; ++slot) {
    const char* entry = at(a.pages, a.page_format, first + slot * a.width);
    float* to = copy + slot * padded;
    if (a.page_format == kFP8)
      kernels->widen_fp8_entry(reinterpret_cast<const uint8_t*>(entry), a.latent_rank, a.rope, padded, to);
    else
      kernels->widen_row(entry, static_cast<int32_t>(a.page_format), a.width, padded, to);
  }
  return copy;
}

// Queries of some tokens of one head in the latent space, their rotated part behind.
void absorb(const Attention& a, int64_t head, int64_t first, int64_t count, int64_t padded, float* queries) {
  float* plain = copied.get(count * a.nope);
  const int32_t format = static_cast<int32_t>(a.query_format);
  float* to = queries + (first * a.heads + head) * padded;
  for (int64_t i = 0; i < count; ++i) {
    const char* nope = at(a.q_nope, format, (first + i) * a.q_nope_token + head * a.q_nope_head);
    const char* rope = at(a.q_rope, format, (first + i) * a.q_rope_token + head * a.q_rope_head);
    float* row = to + i * a.heads * padded;
    kernels->widen_row(nope, format, a.nope, a.nope, plain + i * a.nope);
    for (int64_t c = 0; c < a.latent_rank; ++c) row[c] = 0.0f;
    kernels->widen_row(rope, format, a.rope, padded - a.latent_rank, row + a.latent_rank);
  }
  const Weight w = {at(a.w_uk, a.w_uk_format, head * a.w_uk_head), a.w_uk_format, a.latent_rank, a.w_uk_row,
                    nullptr, 0, 0, 0};
  kernels->combine(plain, a.nope, count, a.nope, w, to, a.heads * padded);
}

void attend(const Attention& a, const Tile& tile, int64_t padded, const float* queries, float* sums,
            int64_t sums_stride) {
  const int64_t rows = tile.num_queries * tile.num_heads, scores_stride = round_up(a.page_size, kLanes);
  float* state = states.get(rows * (2 + padded + sums_stride + scores_stride));
  float *top = state, *total = top + rows, *q = total + rows, *out = q + rows * padded;
  float* scores = out + rows * sums_stride;
  float* copy = copied.get(a.page_size * padded);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = tile.token + row / tile.num_heads, head = tile.head + row % tile.num_heads;
    const float* from = queries + (token * a.heads + head) * padded;
    for (int64_t k = 0; k < padded; ++k) q[row * padded + k] = from[k];
    for (int64_t c = 0; c < sums_stride; ++c) out[row * sums_stride + c] = 0.0f;
    top[row] = -__builtin_inff();
    total[row] = 0.0f;
  }
  const int64_t last = tile.position + tile.num_queries;  // slots before this one are seen
  for (int64_t begin = 0; begin < last; begin += a.page_size) {
    if (begin + a.page_size <= a.first_slot) continue;
    const int64_t page_id = a.page_table[tile.row * a.table_stride + begin / a.page_size];
    PageAttention page;
    page.num_keys = smaller_of(a.page_size, last - begin);
    page.keys = page_entries(a, page_id, page.num_keys, padded, copy);
    page.stride = padded;
    page.first_key = a.first_slot > begin ? a.first_slot - begin : 0;
    page.first_query_keys = tile.position + 1 - begin;
    page.latent_rank = a.latent_rank;
    page.scale = static_cast<float>(a.scale);
    kernels->attend_page(page, tile.num_queries, tile.num_heads, q, padded, scores, top, total, out, sums_stride);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = tile.token + row / tile.num_heads, head = tile.head + row % tile.num_heads;
    float* to = sums + (token * a.heads + head) * sums_stride;
    const float divisor = total[row] == 0.0f ? 1.0f : total[row];  // no keys: zeros
    for (int64_t c = 0; c < sums_stride; ++c) to[c] = out[row * sums_stride + c] / divisor;
  }
}

// A block of one head's values from its sum of latents.
void project_value(const Attention& a, int64_t head, int64_t first, const float* sums, int64_t sums_stride) {
  const int64_t last = smaller_of(first + kBlockColumns, a.value), format = a.query_format;
  const Activations x = {sums + head * sums_stride, a.num_tokens, sums_stride, a.heads * sums_stride};
  const Weight w = {at(a.w_uv, a.w_uv_format, head * a.w_uv_head), a.w_uv_format, a.latent_rank, a.w_uv_row,
                    nullptr, 0, 0, 0};
  float* block = states.get(a.num_tokens * kBlockColumns + panel_floats(a.num_tokens, kBlockColumns, sums_stride));
  kernels->product_block(x, w, first, last, block, kBlockColumns, block + a.num_tokens * kBlockColumns);
  for (int64_t token = 0; token < a.num_tokens; ++token) {
    const int64_t place = (token * a.heads + head) * a.value + first;
    kernels->narrow_row(block + token * kBlockColumns, last - first, static_cast<int32_t>(format),
                        const_cast<char*>(at(a.out, format, place)));
  }
}

// Products that the scores and the weighted sums take.
int64_t attention_work(const Attention& a) {
  int64_t work = 0;
  for (int64_t row = 0; row < a.num_rows; ++row) work += a.query_lens[row] * a.seq_lens[row];
  return work * a.heads * (2 * a.latent_rank + a.rope);
}

}  // namespace
}  // namespace leadline

using namespace leadline;

LEADLINE_API int leadline_mla(const void* packed, int num_threads) {
  const Attention a = *static_cast<const Attention*>(packed);
  const int64_t padded = round_up(a.latent_rank + a.rope, kLanes), stride = round_up(a.latent_rank, kLanes);
  float* queries = absorbed.get(a.num_tokens * a.heads * padded);
  float* sums = summed.get(a.num_tokens * a.heads * stride);
  const int64_t chunks = (a.num_tokens + kQueriesAtOnce - 1) / kQueriesAtOnce;
  const int64_t projected = (a.num_tokens + 1) * a.heads * a.latent_rank;
  share(a.heads * chunks, threads_for(projected * a.nope, num_threads), [&](int64_t item) {
    const int64_t first = item / a.heads * kQueriesAtOnce;
    absorb(a, item % a.heads, first, smaller_of(kQueriesAtOnce, a.num_tokens - first), padded, queries);
  });
  const int threads = threads_for(attention_work(a), num_threads);
  const std::vector<Tile> tiles = make_tiles(a, threads);
  share(static_cast<int64_t>(tiles.size()), threads,
        [&](int64_t item) { attend(a, tiles[item], padded, queries, sums, stride); });
  const int64_t blocks = num_blocks(a.value);
  share(a.heads * blocks, threads_for(projected * a.value, num_threads), [&](int64_t item) {
    project_value(a, item / blocks, item % blocks * kBlockColumns, sums, stride);
  });
  return 0;
}
