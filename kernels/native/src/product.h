// Products x @ w.T. Included once by each instruction set's build, inside its namespace.
//
// Every output is the sum of its own sixteen lanes over k = 0, 16, 32, ..., folded at the end: one order
// for every number of rows and columns and for every way the weight is read. So a row's bits do not
// depend on the rows beside it. (The build switches the compiler's own contraction of a * b + c off.)

// Loops over the sums of a tile, which stay in memory unless all of these are unrolled.
#define UNROLLED _Pragma("GCC unroll 8")

// How an unscaled weight is read: sixteen values, or `count` of them and zeros, of row n from column k on.
struct Float32Reader {
  static constexpr bool kAhead = false;
  const float* data;
  int64_t stride;
  explicit Float32Reader(const Weight& w) : data(static_cast<const float*>(w.data)), stride(w.stride) {}
  Lanes at(int64_t n, int64_t k) const { return load(data + n * stride + k); }
  Lanes some_at(int64_t n, int64_t k, int64_t count) const { return load_some(data + n * stride + k, count); }
};

struct BFloat16Reader {
  static constexpr bool kAhead = true;  // worth its price: to ask for the rows of the next tile
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
  UNROLLED for (int row = 0; row < ROWS; ++row) {
    Lanes values = load(x + row * stride);
    UNROLLED for (int column = 0; column < COLUMNS; ++column)
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
    UNROLLED for (int c = 0; c < COLUMNS; ++c) {
      if (Reader::kAhead) __builtin_prefetch(reader.data + (n + COLUMNS + c) * reader.stride + k);
      values[c] = reader.at(n + c, k);
    }
    accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
  }
  if (k < w.columns) {  // x has zeros beyond these
    UNROLLED for (int c = 0; c < COLUMNS; ++c) values[c] = reader.some_at(n + c, k, w.columns - k);
    accumulate<ROWS, COLUMNS>(sums, values, x + k, x_stride);
  }
}

// The compiler would keep all that is read of x for the next column, in registers that there are not.
static inline void read_again() { asm volatile("" ::: "memory"); }

// Up to 64 values of one weight row; COUNT of their vectors hold any.
template <int ROWS, int COLUMNS, int COUNT>
static inline void accumulate_fp8(Lanes (&sums)[ROWS][COLUMNS], int column, const uint8_t* w, int64_t left,
                                  int64_t ahead, Lanes scale, const float* x, int64_t x_stride) {
  Lanes values[4];
  __builtin_prefetch(w + ahead);
  load_fp8(w, left, values);
  UNROLLED for (int i = 0; i < COUNT; ++i) values[i] = values[i] * scale;
  UNROLLED for (int row = 0; row < ROWS; ++row)
    UNROLLED for (int i = 0; i < COUNT; ++i)
      sums[row][column] = fma(load(x + row * x_stride + i * kLanes), values[i], sums[row][column]);
  if (ROWS > 1) read_again();
}

template <int ROWS, int COLUMNS>
static inline void sum_fp8_products(Lanes (&sums)[ROWS][COLUMNS], const float* x, int64_t x_stride,
                                    const Weight& weight, int64_t n) {
  const Weight w = weight;
  const int64_t ahead = COLUMNS * w.stride;  // the same place of the next tile's rows
  for (int64_t k = 0, end; k < w.columns; k = end) {
    end = block_end(w, k);
    Lanes scales[COLUMNS];
    const uint8_t* rows[COLUMNS];
    UNROLLED for (int c = 0; c < COLUMNS; ++c) {
      scales[c] = all(fp8_scale(w, n + c, k, end - k));
      rows[c] = fp8_at(w, n + c, 0);
    }
    for (; k + kFp8Step <= end; k += kFp8Step)
      UNROLLED for (int c = 0; c < COLUMNS; ++c)
        accumulate_fp8<ROWS, COLUMNS, 4>(sums, c, rows[c] + k, kFp8Step, ahead, scales[c], x + k, x_stride);
    for (; k < end; k += kLanes) {
      int64_t left = end - k < kLanes ? end - k : kLanes;
      UNROLLED for (int c = 0; c < COLUMNS; ++c)
        accumulate_fp8<ROWS, COLUMNS, 1>(sums, c, rows[c] + k, left, ahead, scales[c], x + k, x_stride);
    }
  }
}

template <int ROWS, int COLUMNS>
static inline void store_tile(const Lanes (&sums)[ROWS][COLUMNS], float* out, int64_t out_stride) {
  UNROLLED for (int row = 0; row < ROWS; ++row) {
    if constexpr (COLUMNS == 4) {
      fold4(sums[row][0], sums[row][1], sums[row][2], sums[row][3], out + row * out_stride);
    } else {
      UNROLLED for (int c = 0; c < COLUMNS; ++c) out[row * out_stride + c] = fold(sums[row][c]);
    }
  }
}

// ROWS rows of x by COLUMNS rows of the weight, from row n on.
template <class Reader, int ROWS, int COLUMNS>
static inline void tile(const float* x, int64_t x_stride, const Weight& w, int64_t n, float* out,
                        int64_t out_stride) {
  Lanes sums[ROWS][COLUMNS];
  UNROLLED for (int row = 0; row < ROWS; ++row)
    UNROLLED for (int c = 0; c < COLUMNS; ++c) sums[row][c] = zero();
  if constexpr (is_fp8<Reader>) {
    sum_fp8_products<ROWS, COLUMNS>(sums, x, x_stride, w, n);
  } else {
    sum_products<Reader, ROWS, COLUMNS>(sums, x, x_stride, w, n);
  }
  store_tile(sums, out, out_stride);
}

// Columns of a tile of so many rows: what stays in registers.
template <class Reader, int ROWS>
constexpr int kColumnsOf = is_fp8<Reader> && ROWS >= kWideFp8Rows ? kWideFp8Columns : kTileColumns;

// ROWS rows of x by `count` columns from n on.
template <class Reader, int ROWS>
static inline void strip(const float* x, int64_t x_stride, const Weight& w, int64_t n, int64_t count, float* out,
                         int64_t out_stride) {
  constexpr int kColumns = kColumnsOf<Reader, ROWS>;
  int64_t c = 0;
  for (; c + kColumns <= count; c += kColumns)
    tile<Reader, ROWS, kColumns>(x, x_stride, w, n + c, out + c, out_stride);
  for (; c < count; ++c) tile<Reader, ROWS, 1>(x, x_stride, w, n + c, out + c, out_stride);
}

// The same for a number of rows that is known at run time only, at most MOST.
template <class Reader, int MOST>
static inline void strip_of(int64_t rows, const float* x, int64_t x_stride, const Weight& w, int64_t n,
                            int64_t count, float* out, int64_t out_stride) {
  if constexpr (MOST > 1) {
    if (rows < MOST) return strip_of<Reader, MOST - 1>(rows, x, x_stride, w, n, count, out, out_stride);
  }
  strip<Reader, MOST>(x, x_stride, w, n, count, out, out_stride);
}

// A few columns of the weight for all rows before the next ones, so that they are read from memory once; the rows in
// tiles of about the same size.
template <class Reader>
static void all_rows(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                     int64_t out_stride) {
  constexpr int kMost = is_fp8<Reader> ? kFp8TileRows : kTileRows;
  const int64_t tiles = (x.rows + kMost - 1) / kMost;
  for (int64_t n = first; n < last; n += kTileColumns) {
    const int64_t count = last - n < kTileColumns ? last - n : kTileColumns;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = x.rows * t / tiles, end = x.rows * (t + 1) / tiles;
      strip_of<Reader, kMost>(end - row, x.data + row * x.stride, x.stride, w, n, count,
                              out + row * out_stride + n - first, out_stride);
    }
  }
}

#include "panel.h"

// See `Kernels::product_block`. Few rows read the weight as it is stored; for more it is widened first.
static void product_block(const Activations& x, const Weight& w, int64_t first, int64_t last, float* out,
                          int64_t out_stride, float* panel) {
  if (w.format == kFP8 && x.rows <= kDirectFp8Rows && w.column_offset % kLanes == 0)
    return all_rows<FP8Reader>(x, w, first, last, out, out_stride);
  if (w.format == kBFloat16 && x.rows <= kDirectRows)
    return all_rows<BFloat16Reader>(x, w, first, last, out, out_stride);
  if (w.format == kFloat32 && x.rows <= kDirectRows)
    return all_rows<Float32Reader>(x, w, first, last, out, out_stride);
  panel_product(x, w, first, last, out, out_stride, panel);
}
