// Products x @ w.T. Included once by each instruction set's build, inside its namespace.
//
// Every output is the sum of its own sixteen lanes over k = 0, 16, 32, ..., folded at the end: one order
// for every number of rows and columns and for every way the weight is read. So a row's bits do not
// depend on the rows beside it. (The build switches the compiler's own contraction of a * b + c off.)

// How a weight's values are read, sixteen of row n from column k on. FP8 values are multiplied by their
// block's scale at once, which rounds them as a dequantised weight is rounded.
struct Float32Reader {
  static constexpr bool scaled = false;
  const float* data;
  int64_t stride;
  explicit Float32Reader(const Weight& w) : data(static_cast<const float*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const { return load_some(data + n * stride + k, count); }
};

struct BFloat16Reader {
  static constexpr bool scaled = false;
  const uint16_t* data;
  int64_t stride;
  explicit BFloat16Reader(const Weight& w) : data(static_cast<const uint16_t*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load_bfloat16(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const {
    return load_bfloat16_some(data + n * stride + k, count);
  }
};

struct FP8Reader {
  static constexpr bool scaled = true;
  const uint8_t* data;
  int64_t stride;
  explicit FP8Reader(const Weight& w) : data(static_cast<const uint8_t*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load_fp8(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const { return load_fp8_some(data + n * stride + k, count); }
};

// The factor on what `load_fp8` makes of `count` values of one block: its scale times 2^8, or NaN if one of
// the values is, since then every output of that row is.
static inline float fp8_scale(const Weight& w, int64_t n, int64_t k, int64_t count) {
  const uint8_t* bytes = static_cast<const uint8_t*>(w.data) + n * w.stride + k;
  if (any_fp8_nan(bytes, count)) return __builtin_nanf("");
  int64_t row = (w.row_offset + n) / kBlock, column = (w.column_offset + k) / kBlock;
  return w.scale[row * w.scale_stride + column] * 256.0f;
}

// First column after k that lies in another scale block.
static inline int64_t block_end(const Weight& w, int64_t k) {
  int64_t end = k + kBlock - (w.column_offset + k) % kBlock;
  return end < w.columns ? end : w.columns;
}

// One step of sixteen columns for a tile of outputs.
template <int ROWS, int COLUMNS>
static inline void accumulate(Lanes (&sums)[ROWS][COLUMNS], const Lanes (&w)[COLUMNS], const float* x,
                              int64_t stride) {
  for (int row = 0; row < ROWS; ++row) {
    Lanes values = load(x + row * stride);
    for (int column = 0; column < COLUMNS; ++column)
      sums[row][column] = fma(values, w[column], sums[row][column]);
  }
}

// ROWS rows of x by COLUMNS rows of the weight, from row n on.
template <class Reader, int ROWS, int COLUMNS>
static inline void tile(const float* x, int64_t x_stride, const Weight& w, int64_t n, float* out,
                        int64_t out_stride) {
  const Reader reader(w);
  Lanes sums[ROWS][COLUMNS], values[COLUMNS];
  for (auto& row : sums)
    for (auto& sum : row) sum = zero();
  for (int64_t begin = 0; begin < w.columns;) {
    int64_t end = Reader::scaled ? block_end(w, begin) : w.columns;
    Lanes scales[COLUMNS];
    if constexpr (Reader::scaled)
      for (int c = 0; c < COLUMNS; ++c) scales[c] = all(fp8_scale(w, n + c, begin, end - begin));
    int64_t k = begin;
    for (; k + kLanes <= end; k += kLanes) {
      for (int c = 0; c < COLUMNS; ++c) {
        values[c] = reader.at(n + c, k);
        if constexpr (Reader::scaled) values[c] = values[c] * scales[c];
      }
      accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
    }
    if (k < end) {  // the last columns: those of x beyond them are zero
      for (int c = 0; c < COLUMNS; ++c) {
        values[c] = reader.some_at(n + c, k, end - k);
        if constexpr (Reader::scaled) values[c] = values[c] * scales[c];
      }
      accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
    }
    begin = end;
  }
  for (int row = 0; row < ROWS; ++row) {
    if constexpr (COLUMNS == 4) {
      fold4(sums[row], out + row * out_stride);
    } else {
      for (int c = 0; c < COLUMNS; ++c) out[row * out_stride + c] = fold(sums[row][c]);
    }
  }
}

// ROWS rows of x by all columns of a block.
template <class Reader, int ROWS>
static void strip(const float* x, int64_t x_stride, const Weight& w, int64_t first, int64_t last, float* out,
                  int64_t out_stride) {
  int64_t n = first;
  for (; n + kTileColumns <= last; n += kTileColumns)
    tile<Reader, ROWS, kTileColumns>(x, x_stride, w, n, out + n - first, out_stride);
  for (; n < last; ++n) tile<Reader, ROWS, 1>(x, x_stride, w, n, out + n - first, out_stride);
}

template <class Reader>
static void all_rows(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                     int64_t out_stride) {
  for (int64_t row = 0; row < x.rows;) {
    const float* from = x.data + row * x.stride;
    float* to = out + row * out_stride;
    int64_t count = x.rows - row < kTileRows ? x.rows - row : kTileRows;
    switch (count) {
      case 1: strip<Reader, 1>(from, x.stride, w, first, last, to, out_stride); break;
      case 2: strip<Reader, 2>(from, x.stride, w, first, last, to, out_stride); break;
      case 3: strip<Reader, 3>(from, x.stride, w, first, last, to, out_stride); break;
      case 4: strip<Reader, 4>(from, x.stride, w, first, last, to, out_stride); break;
      case 5: strip<Reader, 5>(from, x.stride, w, first, last, to, out_stride); break;
      default: count = 6; strip<Reader, 6>(from, x.stride, w, first, last, to, out_stride);
    }
    row += count;
  }
}

// One weight row as float32, filled up with zeros.
static void widen_weight_row(const Weight& w, int64_t n, int64_t padded, float* out) {
  if (w.format != kFP8) {
    const char* row = static_cast<const char*>(w.data) + n * w.stride * (w.format == kFloat32 ? 4 : 2);
    widen_row(row, static_cast<int32_t>(w.format), w.columns, padded, out);
    return;
  }
  const FP8Reader reader(w);
  for (int64_t k = w.columns; k < padded; ++k) out[k] = 0.0f;
  for (int64_t k = 0, end; k < w.columns; k = end) {
    end = block_end(w, k);
    const Lanes scale = all(fp8_scale(w, n, k, end - k));
    for (; k + kLanes <= end; k += kLanes) store(out + k, reader.at(n, k) * scale);
    if (k < end) store_some(out + k, reader.some_at(n, k, end - k) * scale, end - k);
  }
}

// See `Kernels::product_block`. Few rows read the weight as it is stored; for more it is widened once.
static void product_block(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                          int64_t out_stride, float* panel) {
  bool aligned = w.format != kFP8 || w.column_offset % kLanes == 0;
  if (x.rows <= kDirectRows && aligned) {
    if (w.format == kFP8) return all_rows<FP8Reader>(x, w, first, last, out, out_stride);
    if (w.format == kBFloat16) return all_rows<BFloat16Reader>(x, w, first, last, out, out_stride);
  }
  if (w.format == kFloat32) return all_rows<Float32Reader>(x, w, first, last, out, out_stride);
  for (int64_t n = first; n < last; ++n) widen_weight_row(w, n, x.padded, panel + (n - first) * x.padded);
  const Weight widened = {panel, kFloat32, x.padded, x.padded, nullptr, 0, 0, 0};
  all_rows<Float32Reader>(x, widened, 0, last - first, out, out_stride);
}
