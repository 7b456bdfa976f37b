// Products: linear layers and the experts' MLPs. Sizes and strides are in elements, formats of types.h.
#include <vector>

#include "calls.h"

namespace leadline {
namespace {

thread_local Scratch inputs, panels, outputs, hiddens;

// Float32 rows for the products: the tensor itself where it is that already, else a copy.
Activations widen(const void* x, int32_t format, int64_t rows, int64_t columns, int64_t stride) {
  int64_t padded = round_up(columns, kLanes);
  if (format == kFloat32 && padded == columns) return {static_cast<const float*>(x), rows, padded, stride};
  float* copy = inputs.get(rows * padded);
  for (int64_t row = 0; row < rows; ++row) {
    const char* from = at(x, format, row * stride);
    kernels->widen_row(from, format, columns, padded, copy + row * padded);
  }
  return {copy, rows, padded, padded};
}

// The weight [rows, columns] of one expert of a stack of them.
Weight expert_of(const Weight& stack, int64_t expert, int64_t rows, int64_t num_scales) {
  Weight w = stack;
  w.data = at(w.data, w.format, expert * rows * w.stride);
  if (w.scale != nullptr) w.scale += expert * num_scales;
  return w;
}

Activations some_rows(const Activations& x, int64_t first, int64_t count) {
  return {x.data + first * x.stride, count, x.padded, x.stride};
}

// Columns of a work item with so many rows.
int64_t columns_of_item(int64_t rows) { return rows > kMostRows / 2 ? kWideColumns : kBlockColumns; }

// One product, [first, last) of its columns, rounded to the format of y.
void product_to(const Activations& x, const Weight& w, int64_t first, int64_t last, char* y, int32_t y_format,
                int64_t y_stride) {
  const int64_t count = last - first;
  float* panel = panels.get(panel_floats(x.rows, count, x.padded));
  if (y_format == kFloat32) {
    kernels->product_block(x, w, first, last, reinterpret_cast<float*>(y) + first, y_stride, panel);
    return;
  }
  float* out = outputs.get(x.rows * count);
  kernels->product_block(x, w, first, last, out, count, panel);
  for (int64_t row = 0; row < x.rows; ++row)
    kernels->narrow_row(out + row * count, count, y_format, y + (row * y_stride + first) * 2);
}

// Rows [first, first + count) that one work item multiplies with the weight of an expert, or of all.
struct RowGroup {
  int64_t expert, first, count;
};

// Splits rows into groups of at most kMostRows.
void add_groups(std::vector<RowGroup>& groups, int64_t expert, int64_t first, int64_t rows) {
  const int64_t parts = (rows + kMostRows - 1) / kMostRows;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
    groups.push_back({expert, first + begin, end - begin});
  }
}

// silu(x @ gate.T) * (x @ up.T) for some of the hidden columns of one expert; the gate is the first `width` rows of
// the weight, the up-projection the others.
void hidden_block(const Activations& x, const Weight& gate_up, int64_t width, int64_t first, int64_t last,
                  float* hidden, int64_t stride) {
  const int64_t count = last - first;
  float* panel = panels.get(panel_floats(x.rows, count, x.padded));
  float* gate = outputs.get(2 * x.rows * count);
  float* up = gate + x.rows * count;
  kernels->product_block(x, gate_up, first, last, gate, count, panel);
  kernels->product_block(x, gate_up, width + first, width + last, up, count, panel);
  for (int64_t row = 0; row < x.rows; ++row) {
    kernels->swiglu_row(gate + row * count, up + row * count, count, hidden + row * stride + first);
    for (int64_t k = last; last == width && k < stride; ++k) hidden[row * stride + k] = 0.0f;
  }
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// y[rows, outs] = x[rows, w.columns] @ w.T; y is contiguous.
LEADLINE_API int leadline_linear(const void* x, int32_t x_format, int64_t rows, int64_t x_stride,
                                  const Weight* weight, int64_t outs, void* y, int32_t y_format,
                                  int num_threads) {
  const Weight w = *weight;
  const Activations activations = widen(x, x_format, rows, w.columns, x_stride);
  std::vector<RowGroup> groups;
  add_groups(groups, 0, 0, rows);
  num_threads = threads_for((rows + 1) * outs * w.columns, num_threads);
  const int64_t columns = columns_of_item(rows), num_items = num_blocks(outs, columns);
  share(static_cast<int64_t>(groups.size()) * num_items, num_threads, [&](int64_t item) {
    const RowGroup& group = groups[item / num_items];
    const int64_t first = item % num_items * columns, last = smaller_of(first + columns, outs);
    product_to(some_rows(activations, group.first, group.count), w, first, last,
               static_cast<char*>(y) + group.first * outs * item_bytes(y_format), y_format, outs);
  });
  return 0;
}

// y[r] = down_e @ swiglu(gate_up_e @ x[r]) for the rows r of each expert e, which follow one another;
// counts[num_experts] of them. `gate_up` and `down` are the first experts', the scales so many apart. Returns 1
// for counts that do not add up to the rows.
LEADLINE_API int leadline_grouped_mlp(const void* x, int32_t format, int64_t rows, int64_t x_stride,
                                       const int64_t* counts, int64_t num_experts, const Weight* gate_up,
                                       int64_t gate_up_scales, const Weight* down, int64_t down_scales,
                                       void* y, int num_threads) {
  const int64_t width = down->columns, outs = gate_up->columns, padded = round_up(width, kLanes);
  std::vector<RowGroup> groups;
  int64_t counted = 0, most = 0;
  for (int64_t e = 0; e < num_experts; counted += counts[e++]) {
    if (counts[e] < 0 || counts[e] > rows - counted) return 1;
    add_groups(groups, e, counted, counts[e]);
    most = counts[e] > most ? counts[e] : most;
  }
  if (counted != rows) return 1;
  if (groups.empty()) return 0;
  const Activations activations = widen(x, format, rows, gate_up->columns, x_stride);
  float* hidden = hiddens.get(rows * padded);
  const int64_t num_groups = static_cast<int64_t>(groups.size()), columns = columns_of_item(most);
  num_threads = threads_for((rows + num_groups) * 3 * width * outs, num_threads);
  const int64_t num_hidden = num_blocks(width, columns), num_out = num_blocks(outs, columns);
  share(num_groups * num_hidden, num_threads, [&](int64_t item) {
    const RowGroup& group = groups[item / num_hidden];
    const int64_t first = item % num_hidden * columns;
    hidden_block(some_rows(activations, group.first, group.count),
                 expert_of(*gate_up, group.expert, 2 * width, gate_up_scales), width, first,
                 smaller_of(first + columns, width), hidden + group.first * padded, padded);
  });
  const Activations inner = {hidden, rows, padded, padded};
  share(num_groups * num_out, num_threads, [&](int64_t item) {
    const RowGroup& group = groups[item / num_out];
    const int64_t first = item % num_out * columns, last = smaller_of(first + columns, outs);
    product_to(some_rows(inner, group.first, group.count), expert_of(*down, group.expert, outs, down_scales), first,
               last, static_cast<char*>(y) + group.first * outs * item_bytes(format), format, outs);
  });
  return 0;
}
