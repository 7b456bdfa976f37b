// Products of many rows: the weight is widened to float32 first. Included once by each instruction set's build,
// inside its namespace.

// One weight row as float32, filled up with zeros; its vectors lie `step` apart.
static void widen_weight_row(const Weight& w, int64_t n, int64_t padded, float* out, int64_t step) {
  const float* from32 = static_cast<const float*>(w.data) + n * w.stride;
  const uint16_t* from16 = static_cast<const uint16_t*>(w.data) + n * w.stride;
  if (w.format != kFP8) {
    for (int64_t k = 0; k < padded; k += kLanes, out += step) {
      const int64_t left = w.columns - k;
      if (left >= kLanes) store(out, w.format == kFloat32 ? load(from32 + k) : load_bfloat16(from16 + k));
      else store(out, w.format == kFloat32 ? load_some(from32 + k, left) : load_bfloat16_some(from16 + k, left));
    }
    return;
  }
  if (w.column_offset % kLanes == 0) {  // blocks begin where vectors do
    for (int64_t k = 0, end; k < w.columns; k = end) {
      end = block_end(w, k);
      const Lanes scale = all(fp8_scale(w, n, k, end - k));
      for (; k < end; k += kFp8Step) {
        Lanes values[4];
        __builtin_prefetch(fp8_at(w, n + kTileColumns, k));
        load_fp8(fp8_at(w, n, k), end - k, values);
        for (int64_t i = 0; i < 4 && k + i * kLanes < end; ++i, out += step) store(out, values[i] * scale);
      }
    }
    return;
  }
  for (int64_t k = w.columns; k < padded; ++k) out[k / kLanes * step + k % kLanes] = 0.0f;
  for (int64_t k = 0, end; k < w.columns; k = end) {
    end = block_end(w, k);
    const float scale = fp8_scale(w, n, k, end - k);
    while (k < end) {
      float values[kFp8Step];
      Lanes wide[4];
      load_fp8(fp8_at(w, n, k), end - k, wide);
      for (int i = 0; i < 4; ++i) store(values + i * kLanes, wide[i]);
      for (int64_t i = 0; i < kFp8Step && k < end; ++i, ++k) out[k / kLanes * step + k % kLanes] = values[i] * scale;
    }
  }
}

// Columns [begin, end) of a weight.
static inline Weight some_columns(const Weight& w, int64_t begin, int64_t end) {
  const int64_t bytes = w.format == kFloat32 ? 4 : w.format == kBFloat16 ? 2 : 1;
  Weight part = w;
  part.data = static_cast<const uint8_t*>(w.data) + begin * bytes;
  part.columns = (end < w.columns ? end : w.columns) - begin;
  part.column_offset += begin;
  return part;
}

// Part of a product that goes on from sums which lie in memory, or leaves its own there.
struct Carry {
  float* sums;
  bool first, last;
};

// ROWS rows of x by COLUMNS columns that lie side by side: sixteen values of each, then the next sixteen.
template <int ROWS, int COLUMNS>
static inline void packed_tile(const float* x, int64_t x_stride, const float* panel, int64_t padded,
                               const Carry& carry, float* out, int64_t out_stride) {
  Lanes sums[ROWS][COLUMNS];
  UNROLLED for (int row = 0; row < ROWS; ++row)
    UNROLLED for (int c = 0; c < COLUMNS; ++c) sums[row][c] = zero();
  if (!carry.first) {
    UNROLLED for (int row = 0; row < ROWS; ++row)
      UNROLLED for (int c = 0; c < COLUMNS; ++c) sums[row][c] = load(carry.sums + (row * COLUMNS + c) * kLanes);
  }
  for (int64_t k = 0; k < padded; k += kLanes, panel += COLUMNS * kLanes) {
    Lanes values[COLUMNS];
    UNROLLED for (int c = 0; c < COLUMNS; ++c) values[c] = load(panel + c * kLanes);
    accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
  }
  if (carry.last) return store_tile(sums, out, out_stride);
  UNROLLED for (int row = 0; row < ROWS; ++row)
    UNROLLED for (int c = 0; c < COLUMNS; ++c) store(carry.sums + (row * COLUMNS + c) * kLanes, sums[row][c]);
}

template <int COLUMNS, int MOST>
static inline void packed_tile_of(int64_t rows, const float* x, int64_t x_stride, const float* panel, int64_t padded,
                                  const Carry& carry, float* out, int64_t out_stride) {
  if constexpr (MOST > 1) {
    if (rows < MOST)
      return packed_tile_of<COLUMNS, MOST - 1>(rows, x, x_stride, panel, padded, carry, out, out_stride);
  }
  packed_tile<MOST, COLUMNS>(x, x_stride, panel, padded, carry, out, out_stride);
}

// Rows `first` to `last` of the weight as float32, as many side by side as a tile has columns.
static void widen_panel(const Weight& w, int64_t first, int64_t last, int64_t padded, float* panel) {
  for (int64_t n = first; n < last; ++n) {
    const int64_t c = (n - first) % kTileColumns, group = n - first - c;
    const int64_t count = last - first - group < kTileColumns ? 1 : kTileColumns;
    float* to = panel + group * padded + (count == 1 ? c * padded : c * kLanes);
    widen_weight_row(w, n, padded, to, count * kLanes);
  }
}

// All rows by the columns of a panel.
static void panel_rows(const Activations& x, int64_t columns, const float* panel, float* sums, bool is_first,
                       bool is_last, float* out, int64_t out_stride) {
  const int64_t tiles = (x.rows + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = x.rows * t / tiles, count = x.rows * (t + 1) / tiles - row;
    const float* from = x.data + row * x.stride;
    float* to = out + row * out_stride;
    for (int64_t c = 0; c < columns;) {
      const Carry carry = {sums + (row * columns + c * count) * kLanes, is_first, is_last};
      const float* values = panel + c * x.padded;
      if (c + kTileColumns <= columns) {
        packed_tile_of<kTileColumns, kTileRows>(count, from, x.stride, values, x.padded, carry, to + c, out_stride);
        c += kTileColumns;
      } else {
        packed_tile_of<1, kTileRows>(count, from, x.stride, values, x.padded, carry, to + c, out_stride);
        ++c;
      }
    }
  }
}

// Many rows: the weight is widened once for `kMostRows` of them, and so much of its depth at a time that all of it
// stays in the core's own cache.
static void panel_product(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                          int64_t out_stride, float* panel) {
  const int64_t groups = (x.rows + kMostRows - 1) / kMostRows, columns = last - first;
  float* sums = panel + columns * kMostDepth;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t row = x.rows * g / groups, end = x.rows * (g + 1) / groups;
    int64_t k = 0;
    do {
      const int64_t depth = x.padded - k < kMostDepth ? x.padded - k : kMostDepth;
      widen_panel(some_columns(w, k, k + depth), first, last, depth, panel);
      const Activations part = {x.data + row * x.stride + k, end - row, depth, x.stride};
      panel_rows(part, columns, panel, sums, k == 0, k + depth == x.padded, out + row * out_stride, out_stride);
      k += depth;
    } while (k < x.padded);
  }
}
