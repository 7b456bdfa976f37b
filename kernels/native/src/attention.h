// Attention of a tile of query heads over one page. Included once by each instruction set's build, inside
// its namespace.

// out[row, c] (+)= sum over d of a[row, d] * b[d, c] for a vector or several of columns, d in order.
template <class Reader, int ROWS, int VECTORS>
static inline void combine_tile(const float* a, int64_t a_stride, int64_t depth, const Reader& b, int64_t column,
                                int64_t last_count, float* out, int64_t out_stride) {
  Lanes sums[ROWS][VECTORS];
  const bool whole = last_count == kLanes;
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) {
      const float* from = out + row * out_stride + column + v * kLanes;
      sums[row][v] = whole ? load(from) : load_some(from, last_count);
    }
  for (int64_t d = 0; d < depth; ++d) {
    Lanes values[VECTORS];
    for (int v = 0; v < VECTORS; ++v)
      values[v] = whole ? b.at(d, column + v * kLanes) : b.some_at(d, column + v * kLanes, last_count);
    for (int row = 0; row < ROWS; ++row) {
      const Lanes factor = all(a[row * a_stride + d]);
      for (int v = 0; v < VECTORS; ++v) sums[row][v] = fma(factor, values[v], sums[row][v]);
    }
  }
  for (int row = 0; row < ROWS; ++row)
    for (int v = 0; v < VECTORS; ++v) {
      float* to = out + row * out_stride + column + v * kLanes;
      if (whole) store(to, sums[row][v]);
      else store_some(to, sums[row][v], last_count);
    }
}

template <class Reader, int ROWS>
static void combine_strip(const float* a, int64_t a_stride, int64_t depth, const Reader& b, int64_t columns,
                          float* out, int64_t out_stride) {
  constexpr int kVectors = kTileColumns;
  int64_t c = 0;
  for (; c + kVectors * kLanes <= columns; c += kVectors * kLanes)
    combine_tile<Reader, ROWS, kVectors>(a, a_stride, depth, b, c, kLanes, out, out_stride);
  for (; c < columns; c += kLanes) {
    int64_t count = columns - c < kLanes ? columns - c : kLanes;
    combine_tile<Reader, ROWS, 1>(a, a_stride, depth, b, c, count, out, out_stride);
  }
}

template <class Reader>
static void combine_rows(const float* a, int64_t a_stride, int64_t rows, int64_t depth, const Weight& b,
                         float* out, int64_t out_stride) {
  const Reader reader(b);
  for (int64_t row = 0; row < rows;) {
    const float* from = a + row * a_stride;
    float* to = out + row * out_stride;
    if (rows - row >= kTileRows) {
      combine_strip<Reader, kTileRows>(from, a_stride, depth, reader, b.columns, to, out_stride);
      row += kTileRows;
    } else if (rows - row >= 2) {
      combine_strip<Reader, 2>(from, a_stride, depth, reader, b.columns, to, out_stride);
      row += 2;
    } else {
      combine_strip<Reader, 1>(from, a_stride, depth, reader, b.columns, to, out_stride);
      ++row;
    }
  }
}

// See `Kernels::combine`.
static void combine(const float* a, int64_t a_stride, int64_t rows, int64_t depth, const Weight& b, float* out,
                    int64_t out_stride) {
  if (b.format == kFloat32) return combine_rows<Float32Reader>(a, a_stride, rows, depth, b, out, out_stride);
  combine_rows<BFloat16Reader>(a, a_stride, rows, depth, b, out, out_stride);
}

// Scores of keys [0, last) to weights, in place, under the running softmax; keys before `first` have none.
// Returns the factor on what was summed before.
static float softmax_step(float* scores, int64_t first, int64_t last, float scale, float* top, float* total) {
  const float infinity = __builtin_inff();
  for (int64_t k = 0; k < first; ++k) scores[k] = -infinity;
  for (int64_t k = last; k < round_up(last, kLanes); ++k) scores[k] = -infinity;
  Lanes largest = all(*top);
  for (int64_t k = 0; k < last; k += kLanes) {
    Lanes scaled = load(scores + k) * all(scale);
    store(scores + k, scaled);
    largest = larger(largest, scaled);
  }
  float values[kLanes], most = *top;
  store(values, largest);
  for (float value : values) most = value > most ? value : most;
  const Lanes base = all(most > -3.4028235e38f ? most : -3.4028235e38f);
  Lanes sum = zero();
  for (int64_t k = 0; k < last; k += kLanes) {
    Lanes weights = exponential(load(scores + k) - base);
    store(scores + k, weights);
    sum = sum + weights;
  }
  store(values, exponential(all(*top) - base));
  const float decay = values[0];
  *top = most;
  *total = *total * decay + fold(sum);
  return decay;
}

// See `Kernels::attend_page`.
static void attend_page(const PageAttention& page, int64_t num_queries, int64_t heads, const float* q,
                        int64_t q_stride, float* scores, float* top, float* total, float* out,
                        int64_t out_stride) {
  const int64_t stride = round_up(page.num_keys, kLanes);
  const Weight keys = {page.keys, kFloat32, q_stride, page.stride, nullptr, 0, 0, 0};
  const Activations queries = {q, num_queries * heads, q_stride, q_stride};
  all_rows<Float32Reader>(queries, keys, 0, page.num_keys, scores, stride);
  for (int64_t query = 0; query < num_queries; ++query) {
    int64_t last = page.first_query_keys + query;
    if (last > page.num_keys) last = page.num_keys;
    if (last <= page.first_key) continue;
    for (int64_t row = query * heads; row < (query + 1) * heads; ++row) {
      const float decay =
          softmax_step(scores + row * stride, page.first_key, last, page.scale, top + row, total + row);
      float* sums = out + row * out_stride;
      for (int64_t c = 0; c < page.latent_rank; c += kLanes) store(sums + c, load(sums + c) * all(decay));
    }
    const Weight values = {page.keys + page.first_key * page.stride, kFloat32, page.latent_rank, page.stride,
                           nullptr, 0, 0, 0};
    combine(scores + query * heads * stride + page.first_key, stride, heads, last - page.first_key, values,
            out + query * heads * out_stride, out_stride);
  }
}

// See `Kernels::widen_fp8_entry`.
static void widen_fp8_entry(const uint8_t* entry, int64_t latent_rank, int64_t rope, int64_t padded, float* out) {
  const uint8_t* scales = entry + latent_rank;
  const int64_t num_groups = (latent_rank + kBlock - 1) / kBlock;
  for (int64_t group = 0; group < num_groups; ++group) {
    int64_t begin = group * kBlock, end = begin + kBlock < latent_rank ? begin + kBlock : latent_rank;
    float scale;
    std::memcpy(&scale, scales + group * sizeof(float), sizeof(float));
    scale *= kFp8Factor;
    if (!kFp8KeepsNan && any_fp8_nan(entry + begin, end - begin)) scale = __builtin_nanf("");
    for (int64_t k = begin; k < end; k += kFp8Step) {
      Lanes values[4];
      load_fp8(entry + k, end - k, values);
      for (int64_t i = 0; i < 4 && k + i * kLanes < end; ++i) {
        int64_t left = end - k - i * kLanes;
        store_some(out + k + i * kLanes, values[i] * all(scale), left < kLanes ? left : kLanes);
      }
    }
  }
  widen_row(scales + num_groups * sizeof(float), kBFloat16, rope, padded - latent_rank, out + latent_rank);
}
