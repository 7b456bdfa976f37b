// Operations on each row alone: norms, rotary embedding, SwiGLU, FP8 groups, merged attention. Strides are in elements.
#include <cmath>

#include "calls.h"
#include "fp8_groups.h"

namespace leadline {
namespace {

thread_local Scratch buffers;

constexpr int64_t kRowsAtOnce = 8;  // rows of one work item

int64_t num_items(int64_t rows) { return (rows + kRowsAtOnce - 1) / kRowsAtOnce; }

template <class Work>
void for_rows(int64_t rows, int64_t columns, int num_threads, Work work) {
  share(num_items(rows), threads_for(8 * rows * columns, num_threads), [&](int64_t item) {
    for (int64_t row = item * kRowsAtOnce; row < smaller_of((item + 1) * kRowsAtOnce, rows); ++row) work(row);
  });
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// y = norm(x), or with a residual: sum = x + residual, rounded to the format, and y = norm(sum). x, residual,
// sum and y have the same format.
LEADLINE_API int leadline_rms_norm(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                   const void* residual, int64_t residual_stride, const void* weight,
                                   int32_t weight_format, int64_t columns, double eps, void* y, void* sum,
                                   int num_threads) {
  const int64_t padded = round_up(columns, kLanes);
  for_rows(rows, columns, num_threads, [&](int64_t row) {
    float *values = buffers.get(3 * padded), *added = values + padded, *weights = added + padded;
    kernels->widen_row(at(x, format, row * x_stride), format, columns, columns, values);
    kernels->widen_row(weight, weight_format, columns, columns, weights);
    if (residual != nullptr) {
      kernels->widen_row(at(residual, format, row * residual_stride), format, columns, columns, added);
      for (int64_t k = 0; k < columns; ++k) values[k] += added[k];
      void* to = const_cast<char*>(at(sum, format, row * columns));
      kernels->narrow_row(values, columns, format, to);
      kernels->widen_row(to, format, columns, columns, values);
    }
    kernels->norm_row(values, weights, columns, static_cast<float>(eps), values);
    kernels->narrow_row(values, columns, format, const_cast<char*>(at(y, format, row * columns)));
  });
  return 0;
}

// Rotates the pairs of each head: x [rows, heads, columns], cosines and sines [rows, columns / 2].
LEADLINE_API int leadline_rope(const void* x, int32_t format, int64_t rows, int64_t x_stride, int64_t head_stride,
                               int64_t heads, int64_t columns, const float* cosines, int64_t cosines_stride,
                               const float* sines, int64_t sines_stride, void* y, int num_threads) {
  for_rows(rows, heads * columns, num_threads, [&](int64_t row) {
    float* values = buffers.get(2 * columns);
    float* rotated = values + columns;
    const float *cosine = cosines + row * cosines_stride, *sine = sines + row * sines_stride;
    for (int64_t head = 0; head < heads; ++head) {
      kernels->widen_row(at(x, format, row * x_stride + head * head_stride), format, columns, columns, values);
      for (int64_t i = 0; i < columns / 2; ++i) {
        const float even = values[2 * i], odd = values[2 * i + 1];
        rotated[2 * i] = even * cosine[i] - odd * sine[i];
        rotated[2 * i + 1] = even * sine[i] + odd * cosine[i];
      }
      void* to = const_cast<char*>(at(y, format, (row * heads + head) * columns));
      kernels->narrow_row(rotated, columns, format, to);
    }
  });
  return 0;
}

// y[rows, width] = silu(x[:, :width]) * x[:, width:].
LEADLINE_API int leadline_swiglu(const void* x, int32_t format, int64_t rows, int64_t x_stride, int64_t width,
                                 void* y, int num_threads) {
  for_rows(rows, 4 * width, num_threads, [&](int64_t row) {
    float *gate = buffers.get(2 * width), *up = gate + width;
    kernels->widen_row(at(x, format, row * x_stride), format, width, width, gate);
    kernels->widen_row(at(x, format, row * x_stride + width), format, width, width, up);
    kernels->swiglu_row(gate, up, width, gate);
    kernels->narrow_row(gate, width, format, const_cast<char*>(at(y, format, row * width)));
  });
  return 0;
}

// y[rows, columns] in e4m3 with a scale for each group of 128 columns, a power of two if wanted: scales[rows, groups].
LEADLINE_API int leadline_quantize_fp8(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                       int64_t columns, int32_t power_of_two, uint8_t* y, float* scales,
                                       int num_threads) {
  const int64_t num_groups = (columns + kBlock - 1) / kBlock;
  for_rows(rows, columns, num_threads, [&](int64_t row) {
    float* values = buffers.get(columns);
    kernels->widen_row(at(x, format, row * x_stride), format, columns, columns, values);
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t begin = g * kBlock, count = smaller_of(kBlock, columns - begin);
      scales[row * num_groups + g] =
          quantize_group(values + begin, count, power_of_two != 0, y + row * columns + begin);
    }
  });
  return 0;
}

// Two attention results over disjoint keys, each contiguous: o[rows, columns] with lse[rows].
LEADLINE_API int leadline_merge_attention(const float* o1, const float* lse1, const float* o2, const float* lse2,
                                          int64_t rows, int64_t columns, float* o, float* lse, int num_threads) {
  constexpr float kLowest = -3.4028235e38f, kTiny = 1.17549435e-38f;
  for_rows(rows, columns, num_threads, [&](int64_t row) {
    float top = lse1[row] >= lse2[row] || lse1[row] != lse1[row] ? lse1[row] : lse2[row];
    if (top < kLowest) top = kLowest;  // no keys on either side
    const float share1 = std::exp(lse1[row] - top), share2 = std::exp(lse2[row] - top), total = share1 + share2;
    const float divisor = total < kTiny ? kTiny : total;
    for (int64_t c = row * columns; c < (row + 1) * columns; ++c) o[c] = (share1 * o1[c] + share2 * o2[c]) / divisor;
    lse[row] = top + std::log(total);
  });
  return 0;
}
