// The functions that Python calls. Sizes and strides are in elements; formats are those of types.h.
#include <cstdlib>
#include <vector>

#include "team.h"
#include "types.h"

namespace leadline {
namespace {

const Kernels* choose_kernels(int level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && level >= 2) return &kAvx512Kernels;
  if (avx2 && level >= 1) return &kAvx2Kernels;
#endif
  return &kPortableKernels;
}

const Kernels* kernels = choose_kernels(2);

// Float32 memory of one thread, used again by its next call.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  float* get(int64_t count) {
    if (count > size_) {
      std::free(data_);
      size_ = round_up(count, 1024);
      data_ = static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float)));
      if (data_ == nullptr) std::abort();  // no caller could go on without it
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  int64_t size_ = 0;
};

thread_local Scratch inputs, panels, outputs, hiddens;

int64_t item_bytes(int64_t format) { return format == kFloat32 ? 4 : format == kBFloat16 ? 2 : 1; }

// So little work that waking other threads would take longer than doing it.
int threads_for(int64_t rows, int64_t columns, int64_t depth, int num_threads) {
  return (rows + 1) * columns * depth < 600000 ? 1 : num_threads;
}

// Float32 rows for the products: the tensor itself where it is that already, else a copy.
Activations widen(const void* x, int32_t format, int64_t rows, int64_t columns, int64_t stride) {
  int64_t padded = round_up(columns, kLanes);
  if (format == kFloat32 && padded == columns) return {static_cast<const float*>(x), rows, padded, stride};
  float* copy = inputs.get(rows * padded);
  for (int64_t row = 0; row < rows; ++row) {
    const char* from = static_cast<const char*>(x) + row * stride * item_bytes(format);
    kernels->widen_row(from, format, columns, padded, copy + row * padded);
  }
  return {copy, rows, padded, padded};
}

// The weight [rows, columns] of one expert of a stack of them.
Weight expert_of(const Weight& stack, int64_t expert, int64_t rows, int64_t num_scales) {
  Weight w = stack;
  w.data = static_cast<const char*>(w.data) + expert * rows * w.stride * item_bytes(w.format);
  if (w.scale != nullptr) w.scale += expert * num_scales;
  return w;
}

Activations some_rows(const Activations& x, int64_t first, int64_t count) {
  return {x.data + first * x.stride, count, x.padded, x.stride};
}

// One product, [first, last) of its columns, rounded to the format of y.
void product_to(const Activations& x, const Weight& w, int64_t first, int64_t last, char* y, int32_t y_format,
                int64_t y_stride) {
  float* panel = panels.get(kBlockColumns * x.padded);
  int64_t count = last - first;
  if (y_format == kFloat32) {
    kernels->product_block(x, w, first, last, reinterpret_cast<float*>(y) + first, y_stride, panel);
    return;
  }
  float* out = outputs.get(x.rows * kBlockColumns);
  kernels->product_block(x, w, first, last, out, kBlockColumns, panel);
  for (int64_t row = 0; row < x.rows; ++row)
    kernels->narrow_row(out + row * kBlockColumns, count, y_format, y + (row * y_stride + first) * 2);
}

int64_t num_blocks(int64_t columns) { return (columns + kBlockColumns - 1) / kBlockColumns; }

// An expert that has rows: `count` of them from `first` on.
struct BusyExpert {
  int64_t index, first, count;
};

// silu(x @ gate.T) * (x @ up.T) for a block of the hidden columns of one expert; the gate is the first
// `width` rows of the weight, the up-projection the others.
void hidden_block(const Activations& x, const Weight& gate_up, int64_t width, int64_t first, float* hidden,
                  int64_t stride) {
  int64_t last = first + kBlockColumns < width ? first + kBlockColumns : width;
  float* panel = panels.get(kBlockColumns * x.padded);
  float* gate = outputs.get(2 * x.rows * kBlockColumns);
  float* up = gate + x.rows * kBlockColumns;
  kernels->product_block(x, gate_up, first, last, gate, kBlockColumns, panel);
  kernels->product_block(x, gate_up, width + first, width + last, up, kBlockColumns, panel);
  for (int64_t row = 0; row < x.rows; ++row) {
    float* out = hidden + row * stride + first;
    kernels->swiglu_row(gate + row * kBlockColumns, up + row * kBlockColumns, last - first, out);
    for (int64_t k = last; last == width && k < stride; ++k) hidden[row * stride + k] = 0.0f;
  }
}

}  // namespace
}  // namespace leadline

using namespace leadline;

#define LEADLINE_API __attribute__((visibility("default")))

extern "C" {

LEADLINE_API int leadline_abi_version() { return 1; }

LEADLINE_API const char* leadline_instructions() { return kernels->name; }

// For tests: 0 portable, 1 up to AVX2, 2 the best that the machine has.
LEADLINE_API void leadline_limit_instructions(int level) { kernels = choose_kernels(level); }

// y[rows, outs] = x[rows, w.columns] @ w.T; y is contiguous.
LEADLINE_API void leadline_linear(const void* x, int32_t x_format, int64_t rows, int64_t x_stride,
                                  const Weight* weight, int64_t outs, void* y, int32_t y_format,
                                  int num_threads) {
  const Weight w = *weight;
  const Activations activations = widen(x, x_format, rows, w.columns, x_stride);
  num_threads = threads_for(rows, outs, w.columns, num_threads);
  share(num_blocks(outs), num_threads, [&](int64_t item) {
    int64_t first = item * kBlockColumns, last = first + kBlockColumns < outs ? first + kBlockColumns : outs;
    product_to(activations, w, first, last, static_cast<char*>(y), y_format, outs);
  });
}

// y[r] = down_e @ swiglu(gate_up_e @ x[r]) for the rows r of each expert e, which follow one another;
// counts[num_experts] of them. `gate_up` and `down` are the first experts', their `num_scales` apart.
LEADLINE_API void leadline_grouped_mlp(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                       const int64_t* counts, int64_t num_experts, const Weight* gate_up,
                                       int64_t gate_up_scales, const Weight* down, int64_t down_scales,
                                       void* y, int num_threads) {
  const int64_t width = down->columns, outs = gate_up->columns, padded = round_up(width, kLanes);
  const Activations activations = widen(x, format, rows, gate_up->columns, x_stride);
  std::vector<BusyExpert> busy;
  for (int64_t e = 0, first = 0; e < num_experts; first += counts[e++])
    if (counts[e] > 0) busy.push_back({e, first, counts[e]});
  if (busy.empty()) return;
  float* hidden = hiddens.get(rows * padded);
  const int64_t weights_read = static_cast<int64_t>(busy.size());
  num_threads = threads_for(rows + weights_read - 1, 3 * width, outs, num_threads);
  const int64_t num_hidden = num_blocks(width), num_out = num_blocks(outs);
  share(weights_read * num_hidden, num_threads, [&](int64_t item) {
    const BusyExpert& expert = busy[item / num_hidden];
    hidden_block(some_rows(activations, expert.first, expert.count),
                 expert_of(*gate_up, expert.index, 2 * width, gate_up_scales), width,
                 item % num_hidden * kBlockColumns, hidden + expert.first * padded, padded);
  });
  const Activations inner = {hidden, rows, padded, padded};
  share(weights_read * num_out, num_threads, [&](int64_t item) {
    const BusyExpert& expert = busy[item / num_out];
    int64_t first = item % num_out * kBlockColumns;
    int64_t last = first + kBlockColumns < outs ? first + kBlockColumns : outs;
    product_to(some_rows(inner, expert.first, expert.count), expert_of(*down, expert.index, outs, down_scales),
               first, last, static_cast<char*>(y) + expert.first * outs * item_bytes(format), format, outs);
  });
}

}  // extern "C"
