// A stack of decoder layers in one call: what engine/model composes, by the same functions in the same order.
#include "decoder.h"

#include <cstring>

namespace leadline {
namespace {

// Memory of one step's activations, by what they are; a thread's next step uses it again.
struct Buffers {
  Scratch cosines, sines, normed, residual, block, kv, latent, key, q_latent, q_normed, query, q_rope, heads;
  Scratch gate_up, hidden, shared, logits, ids, weights, rows, order, counts, outputs;
};
thread_local Buffers buffers;

// One stack at work on one step; `failed` once a function could not take its values.
struct Pass {
  const Stack& stack;
  const Step& step;
  int32_t format;
  int num_threads;
  bool failed = false;

  int64_t tokens() const { return step.num_tokens; }

  void* room(Scratch& buffer, int64_t rows, int64_t columns) const {
    return buffer.get((rows * columns * item_bytes(format) + 3) / 4);
  }
  int64_t* whole_numbers(Scratch& buffer, int64_t count) const {
    return reinterpret_cast<int64_t*>(buffer.get(2 * count));
  }

  void multiply(const void* x, int64_t stride, const Projection& by, void* y) const {
    leadline_linear(x, format, tokens(), stride, &by.weight, by.outs, y, format, num_threads);
  }
  void norm(const void* x, int64_t stride, const Gain& gain, int64_t columns, double eps, void* y) const {
    leadline_rms_norm(x, format, tokens(), stride, nullptr, 0, gain.data, static_cast<int32_t>(gain.format), columns,
                      eps, y, nullptr, num_threads);
  }
  // residual += x; y = norm(residual). The sum is a new place's, since a row is read as it is written.
  void add_norm(const void* x, const Gain& gain, void* residual, void* y) const {
    leadline_rms_norm(x, format, tokens(), stack.hidden, residual, stack.hidden, gain.data,
                      static_cast<int32_t>(gain.format), stack.hidden, stack.eps, y, residual, num_threads);
  }
  void rotate(const void* x, int64_t stride, int64_t head_stride, int64_t heads, void* y) const {
    const int64_t half = stack.rope / 2;
    leadline_rope(x, format, tokens(), stride, head_stride, heads, stack.rope, buffers.cosines.get(tokens() * half),
                  half, buffers.sines.get(tokens() * half), half, y, num_threads);
  }

  void look_up_angles() const {
    const int64_t half = stack.rope / 2, bytes = half * sizeof(float);
    float *cosines = buffers.cosines.get(tokens() * half), *sines = buffers.sines.get(tokens() * half);
    for (int64_t i = 0; i < tokens(); ++i) {
      std::memcpy(cosines + i * half, stack.cosines + step.positions[i] * half, bytes);
      std::memcpy(sines + i * half, stack.sines + step.positions[i] * half, bytes);
    }
  }

  char* pages(int64_t layer) const { return step.pages + (stack.first_layer + layer) * step.layer_bytes; }

  // Compresses the tokens and keeps their latents (DeepSeek-V3, section 2.1.1).
  void write(int64_t layer, const void* x) {
    const MLAWeights& w = stack.layers[layer].attention;
    const int64_t width = stack.latent_rank + stack.rope;
    void* kv = room(buffers.kv, tokens(), width);
    void* latent = room(buffers.latent, tokens(), stack.latent_rank);
    void* key = room(buffers.key, tokens(), stack.rope);
    multiply(x, stack.hidden, w.kv_a, kv);
    norm(kv, width, w.kv_a_norm, stack.latent_rank, stack.latent_eps, latent);
    rotate(at(kv, format, stack.latent_rank), width, stack.rope, 1, key);
    failed |= leadline_write_latent(latent, format, tokens(), stack.latent_rank, stack.latent_rank, key, stack.rope,
                                    stack.rope, step.slots, step.num_slots, pages(layer),
                                    static_cast<int32_t>(step.page_format), step.width) != 0;
  }

  void attend(int64_t layer, const void* x, void* y) {
    const MLAWeights& w = stack.layers[layer].attention;
    write(layer, x);
    int64_t depth = stack.hidden;
    if (w.q_a.outs > 0) {
      depth = w.q_a.outs;
      void* latent = room(buffers.q_latent, tokens(), depth);
      multiply(x, stack.hidden, w.q_a, latent);
      void* normed = room(buffers.q_normed, tokens(), depth);
      norm(latent, depth, w.q_a_norm, depth, stack.latent_eps, normed);
      x = normed;
    }
    const int64_t head = stack.nope + stack.rope, width = stack.heads * head;
    void* query = room(buffers.query, tokens(), width);
    void* q_rope = room(buffers.q_rope, tokens(), stack.heads * stack.rope);
    void* out = room(buffers.heads, tokens(), stack.heads * stack.value);
    multiply(x, depth, w.q_b, query);
    rotate(at(query, format, stack.nope), width, head, stack.heads, q_rope);
    Attention a;
    a.q_nope = query, a.q_nope_token = width, a.q_nope_head = head;
    a.q_rope = q_rope, a.q_rope_token = stack.heads * stack.rope, a.q_rope_head = stack.rope;
    a.query_format = format;
    a.pages = pages(layer), a.page_format = step.page_format, a.page_size = step.page_size, a.width = step.width;
    a.page_table = step.page_table, a.table_stride = step.table_stride;
    a.query_lens = step.query_lens, a.seq_lens = step.seq_lens;
    a.num_rows = step.num_rows, a.num_tokens = tokens();
    a.w_uk = w.w_uk.data, a.w_uk_format = w.w_uk.format, a.w_uk_head = w.w_uk.head, a.w_uk_row = w.w_uk.row;
    a.w_uv = w.w_uv.data, a.w_uv_format = w.w_uv.format, a.w_uv_head = w.w_uv.head, a.w_uv_row = w.w_uv.row;
    a.heads = stack.heads, a.nope = stack.nope, a.rope = stack.rope;
    a.latent_rank = stack.latent_rank, a.value = stack.value;
    a.first_slot = stack.first_slot, a.scale = stack.scale;
    a.out = out;
    if (failed) return;
    leadline_mla(&a, num_threads);
    multiply(out, stack.heads * stack.value, w.o, y);
  }

  void run_dense(const DenseMLP& w, const void* x, void* y) const {
    const int64_t width = w.gate_up.outs / 2;
    void* gate_up = room(buffers.gate_up, tokens(), 2 * width);
    void* hidden = room(buffers.hidden, tokens(), width);
    multiply(x, stack.hidden, w.gate_up, gate_up);
    leadline_swiglu(gate_up, format, tokens(), 2 * width, width, hidden, num_threads);
    multiply(hidden, width, w.down, y);
  }

  // Routed experts plus the shared one (section 2.1.2).
  void run_experts(const Experts& w, const DenseMLP& shared, const void* x, void* y) {
    const int64_t top_k = w.router.top_k, num_rows = tokens() * top_k, hidden = stack.hidden;
    float* logits = buffers.logits.get(tokens() * w.num_experts);
    int64_t* ids = whole_numbers(buffers.ids, num_rows);
    float* weights = buffers.weights.get(num_rows);
    leadline_linear(x, format, tokens(), hidden, &w.gate.weight, w.num_experts, logits, kFloat32, num_threads);
    leadline_route(logits, tokens(), w.num_experts, w.num_experts, w.bias, &w.router, ids, weights);
    void* rows = room(buffers.rows, num_rows, hidden);
    int64_t* order = whole_numbers(buffers.order, num_rows);
    int64_t* counts = whole_numbers(buffers.counts, w.num_experts);
    std::memset(counts, 0, w.num_experts * sizeof(int64_t));
    const int64_t row_bytes = hidden * item_bytes(format);
    failed |= leadline_permute(x, row_bytes, row_bytes, ids, tokens(), top_k, w.num_experts, rows, order, counts) != 0;
    if (failed) return;
    for (int64_t e = 0; e < w.num_experts; ++e) w.num_chosen[e] += counts[e];
    void* outputs = room(buffers.outputs, num_rows, hidden);
    leadline_grouped_mlp(rows, format, num_rows, hidden, counts, w.num_experts, &w.gate_up.weight, w.gate_up_scales,
                         &w.down.weight, w.down_scales, outputs, num_threads);
    leadline_unpermute(outputs, format, tokens(), hidden, hidden, order, weights, top_k, y);
    if (shared.gate_up.outs == 0) return;
    void* beside = room(buffers.shared, tokens(), hidden);
    run_dense(shared, x, beside);
    add(beside, y);
  }

  // y += x.
  void add(const void* x, void* y) const {
    float *a = buffers.hidden.get(2 * stack.hidden), *b = a + stack.hidden;
    for (int64_t row = 0; row < tokens(); ++row) {
      void* to = const_cast<char*>(at(y, format, row * stack.hidden));
      kernels->widen_row(at(x, format, row * stack.hidden), format, stack.hidden, stack.hidden, a);
      kernels->widen_row(to, format, stack.hidden, stack.hidden, b);
      for (int64_t k = 0; k < stack.hidden; ++k) b[k] += a[k];
      kernels->narrow_row(b, stack.hidden, format, to);
    }
  }

  // `normed` is what the stack's norm makes of the residual stream after the last layer, `raw`.
  void run(const void* x, void* normed, void* raw) {
    look_up_angles();
    void* block = room(buffers.block, tokens(), stack.hidden);
    void* between = room(buffers.normed, tokens(), stack.hidden);
    std::memcpy(raw, x, tokens() * stack.hidden * item_bytes(format));
    for (int64_t i = 0; i < stack.num_layers && !failed; ++i) {
      const Layer& layer = stack.layers[i];
      if (i == 0) norm(raw, stack.hidden, layer.input_norm, stack.hidden, stack.eps, between);
      else add_norm(block, layer.input_norm, raw, between);
      attend(i, between, block);
      if (failed) return;
      add_norm(block, layer.post_norm, raw, between);
      if (layer.experts.gate.outs > 0) run_experts(layer.experts, layer.dense, between, block);
      else run_dense(layer.dense, between, block);
    }
    add_norm(block, stack.norm, raw, normed);
  }
};

}  // namespace
}  // namespace leadline

using namespace leadline;

// x, normed, raw: [T, hidden], contiguous. Returns 1 for a slot that there is not; the step is then half done.
LEADLINE_API int leadline_run_stack(const Stack* stack, const Step* step, const void* x, void* normed, void* raw,
                                    int num_threads) {
  Pass pass{*stack, *step, static_cast<int32_t>(stack->format), num_threads};
  pass.run(x, normed, raw);
  return pass.failed;
}

// Only writes the entries of the first layer.
LEADLINE_API int leadline_write_stack(const Stack* stack, const Step* step, const void* x, int num_threads) {
  Pass pass{*stack, *step, static_cast<int32_t>(stack->format), num_threads};
  pass.look_up_angles();
  void* normed = pass.room(buffers.normed, step->num_tokens, stack->hidden);
  pass.norm(x, stack->hidden, stack->layers[0].input_norm, stack->hidden, stack->eps, normed);
  pass.write(0, normed);
  return pass.failed;
}
