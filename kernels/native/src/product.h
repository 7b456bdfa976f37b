// Products x @ w.T. Included once by each instruction set's build, inside its namespace.
//
// Every output is the sum of its own sixteen lanes over k = 0, 16, 32, ..., folded at the end: one order
// for every number of rows and columns and for every way the weight is read. So a row's bits do not
// depend on the rows beside it. (The build switches the compiler's own contraction of a * b + c off.)

// How an unscaled weight is read: sixteen values, or `count` of them and zeros, of row n from column k on.
struct Float32Reader {
  const float* data;
  int64_t stride;
  explicit Float32Reader(const Weight& w) : data(static_cast<const float*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const { return load_some(data + n * stride + k, count); }
};

struct BFloat16Reader {
  const uint16_t* data;
  int64_t stride;
  explicit BFloat16Reader(const Weight& w) : data(static_cast<const uint16_t*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load_bfloat16(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const {
    return load_bfloat16_some(data + n * stride + k, count);
  }
};

// FP8 values are multiplied by their block's scale at once, which rounds them as dequantising does.
struct FP8Reader {};
template <class Reader>
constexpr bool is_fp8 = false;
template <>
constexpr bool is_fp8<FP8Reader> = true;
constexpr int64_t kFp8Step = 64;  // values that are read together

static inline const uint8_t* fp8_at(const Weight& w, int64_t n, int64_t k) {
  return static_cast<const uint8_t*>(w.data) + n * w.stride + k;
}

// The factor on `count` values of one block as `load_fp8` reads them: NaN if it does not keep NaNs and one of
// the values is one, since then every output of that row is.
static inline float fp8_scale(const Weight& w, int64_t n, int64_t k, int64_t count) {
  if (!kFp8KeepsNan && any_fp8_nan(fp8_at(w, n, k), count)) return __builtin_nanf("");
  int64_t row = (w.row_offset + n) / kBlock, column = (w.column_offset + k) / kBlock;
  return w.scale[row * w.scale_stride + column] * kFp8Factor;
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

template <class Reader, int ROWS, int COLUMNS>
static inline void sum_products(Lanes (&sums)[ROWS][COLUMNS], const float* x, int64_t x_stride, const Weight& w,
                                int64_t n) {
  const Reader reader(w);
  Lanes values[COLUMNS];
  int64_t k = 0;
  for (; k + kLanes <= w.columns; k += kLanes) {
    for (int c = 0; c < COLUMNS; ++c) values[c] = reader.at(n + c, k);
    accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
  }
  if (k < w.columns) {  // x has zeros beyond these
    for (int c = 0; c < COLUMNS; ++c) values[c] = reader.some_at(n + c, k, w.columns - k);
    accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
  }
}

// Up to 64 values of one weight row; COUNT of their vectors hold any.
template <int ROWS, int COLUMNS, int COUNT>
static inline void accumulate_fp8(Lanes (&sums)[ROWS][COLUMNS], int column, const uint8_t* w, int64_t left,
                                  Lanes scale, const float* x, int64_t x_stride) {
  Lanes values[4];
  load_fp8(w, left, values);
  for (int i = 0; i < COUNT; ++i) values[i] = values[i] * scale;
  for (int row = 0; row < ROWS; ++row)
    for (int i = 0; i < COUNT; ++i)
      sums[row][column] = fma(load(x + row * x_stride + i * kLanes), values[i], sums[row][column]);
}

template <int ROWS, int COLUMNS>
static inline void sum_fp8_products(Lanes (&sums)[ROWS][COLUMNS], const float* x, int64_t x_stride,
                                    const Weight& w, int64_t n) {
  for (int64_t k = 0, end; k < w.columns; k = end) {
    end = block_end(w, k);
    Lanes scales[COLUMNS];
    for (int c = 0; c < COLUMNS; ++c) scales[c] = all(fp8_scale(w, n + c, k, end - k));
    for (; k + kFp8Step <= end; k += kFp8Step)
      for (int c = 0; c < COLUMNS; ++c)
        accumulate_fp8<ROWS, COLUMNS, 4>(sums, c, fp8_at(w, n + c, k), kFp8Step, scales[c], x + k, x_stride);
    for (; k < end; k += kLanes) {
      int64_t left = end - k < kLanes ? end - k : kLanes;
      for (int c = 0; c < COLUMNS; ++c)
        accumulate_fp8<ROWS, COLUMNS, 1>(sums, c, fp8_at(w, n + c, k), left, scales[c], x + k, x_stride);
    }
  }
}

// ROWS rows of x by COLUMNS rows of the weight, from row n on.
template <class Reader, int ROWS, int COLUMNS>
static inline void tile(const float* x, int64_t x_stride, const Weight& w, int64_t n, float* out,
                        int64_t out_stride) {
  Lanes sums[ROWS][COLUMNS];
  for (auto& row : sums)
    for (auto& sum : row) sum = zero();
  if constexpr (is_fp8<Reader>) {
    sum_fp8_products<ROWS, COLUMNS>(sums, x, x_stride, w, n);
  } else {
    sum_products<Reader, ROWS, COLUMNS>(sums, x, x_stride, w, n);
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
  for (int64_t k = w.columns; k < padded; ++k) out[k] = 0.0f;
  for (int64_t k = 0, end; k < w.columns; k = end) {
    end = block_end(w, k);
    const Lanes scale = all(fp8_scale(w, n, k, end - k));
    for (; k < end; k += kFp8Step) {
      Lanes values[4];
      load_fp8(fp8_at(w, n, k), end - k, values);
      for (int64_t i = 0; i < 4 && k + i * kLanes < end; ++i) {
        int64_t left = end - k - i * kLanes;
        store_some(out + k + i * kLanes, values[i] * scale, left < kLanes ? left : kLanes);
      }
    }
  }
}

// See `Kernels::product_block`. Few rows read the weight as it is stored; for more it is widened once.
static void product_block(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                          int64_t out_stride, float* panel) {
  if (w.format == kFP8 && x.rows <= kDirectFp8Rows && w.column_offset % kLanes == 0)
    return all_rows<FP8Reader>(x, w, first, last, out, out_stride);
  if (w.format == kBFloat16 && x.rows <= kDirectRows)
    return all_rows<BFloat16Reader>(x, w, first, last, out, out_stride);
  if (w.format == kFloat32) return all_rows<Float32Reader>(x, w, first, last, out, out_stride);
  for (int64_t n = first; n < last; ++n) widen_weight_row(w, n, x.padded, panel + (n - first) * x.padded);
  const Weight widened = {panel, kFloat32, x.padded, x.padded, nullptr, 0, 0, 0};
  all_rows<Float32Reader>(x, widened, 0, last - first, out, out_stride);
}
