// The multi-token prediction layer and its chains of drafts in one call (DeepSeek-V3, section 2.2).
#include <cstring>
#include <vector>

#include "decoder.h"

namespace leadline {
namespace {

struct Buffers {
  Scratch embedded, normed, both, paired, hidden, after, before, logits, shares;
};
thread_local Buffers buffers;

void* room(const Stack& stack, Scratch& buffer, int64_t rows, int64_t columns) {
  return buffer.get((rows * columns * item_bytes(stack.format) + 3) / 4);
}

// eh_proj of the normed embedding beside the normed hidden state of the token before.
void* pair(const Stack& stack, const Pairing& w, const int64_t* ids, const void* hidden, int64_t tokens,
           int num_threads) {
  const int32_t format = static_cast<int32_t>(stack.format);
  const int64_t width = stack.hidden, bytes = width * item_bytes(format);
  char* embedded = static_cast<char*>(room(stack, buffers.embedded, tokens, width));
  char* normed = static_cast<char*>(room(stack, buffers.normed, tokens, width));
  char* both = static_cast<char*>(room(stack, buffers.both, tokens, 2 * width));
  void* paired = room(stack, buffers.paired, tokens, width);
  for (int64_t i = 0; i < tokens; ++i) std::memcpy(embedded + i * bytes, at(w.embedding, format, ids[i] * width), bytes);
  const void* halves[2] = {embedded, hidden};
  const Gain* gains[2] = {&w.enorm, &w.hnorm};
  for (int half = 0; half < 2; ++half) {
    leadline_rms_norm(halves[half], format, tokens, width, nullptr, 0, gains[half]->data,
                      static_cast<int32_t>(gains[half]->format), width, stack.eps, normed, nullptr, num_threads);
    for (int64_t i = 0; i < tokens; ++i) std::memcpy(both + (2 * i + half) * bytes, normed + i * bytes, bytes);
  }
  leadline_linear(both, format, tokens, 2 * width, &w.eh.weight, width, paired, format, num_threads);
  return paired;
}

bool ids_exist(const Pairing& w, const int64_t* ids, int64_t tokens) {
  for (int64_t i = 0; i < tokens; ++i)
    if (ids[i] < 0 || ids[i] >= w.vocabulary) return false;
  return true;
}

// Requests that draft in a pass, and what the layer takes of each.
struct Live {
  std::vector<int64_t> rows, tokens, positions, slots, ones, lens, table;
  std::vector<float> temperature, top_p, min_p;
  std::vector<int64_t> top_k, seeds, sampled_positions, ids;
};

Step step_of(const Step& pool, const Chain& chain, const std::vector<int64_t>& next, Live& live) {
  const int64_t count = static_cast<int64_t>(live.rows.size());
  live = Live{std::move(live.rows)};
  for (int64_t row : live.rows) {
    const int64_t depth = chain.counts[row], position = chain.positions[row] + depth;
    const int64_t* pages = pool.page_table + row * pool.table_stride;
    live.tokens.push_back(next[row]);
    live.positions.push_back(position);
    live.slots.push_back(pages[position / pool.page_size] * pool.page_size + position % pool.page_size);
    live.lens.push_back(position + 1);
    live.table.insert(live.table.end(), pages, pages + pool.table_stride);
    live.temperature.push_back(chain.temperature[row]);
    live.top_k.push_back(chain.top_k[row]);
    live.top_p.push_back(chain.top_p[row]);
    live.min_p.push_back(chain.min_p[row]);
    live.seeds.push_back(chain.seeds[row]);
    live.sampled_positions.push_back(position + 1);
  }
  live.ones.assign(count, 1);
  live.ids.assign(count, 0);
  Step step = pool;
  step.num_tokens = step.num_rows = count;
  step.positions = live.positions.data(), step.slots = live.slots.data();
  step.query_lens = live.ones.data(), step.seq_lens = live.lens.data();
  step.page_table = live.table.data();
  return step;
}

// One draft for each live row, and its probability before temperature and cuts.
void sample(const Stack& stack, const Pairing& w, const Chain& chain, const void* hidden, Live& live,
            std::vector<float>& probabilities, int num_threads) {
  const int64_t count = static_cast<int64_t>(live.rows.size()), vocabulary = w.head.outs;
  float* logits = buffers.logits.get(count * vocabulary);
  leadline_linear(hidden, static_cast<int32_t>(stack.format), count, stack.hidden, &w.head.weight, vocabulary, logits,
                  kFloat32, num_threads);
  const SamplingParameters parameters = {live.temperature.data(), live.top_k.data(), live.top_p.data(),
                                         live.min_p.data(),       live.seeds.data(), live.sampled_positions.data()};
  leadline_sample(logits, logits, count, vocabulary, vocabulary, &parameters, static_cast<int32_t>(chain.cuts),
                  live.ids.data(), num_threads);
  float* shares = buffers.shares.get(vocabulary);
  for (int64_t i = 0; i < count; ++i) {
    kernels->softmax_row(logits + i * vocabulary, vocabulary, shares);
    probabilities.push_back(live.ids[i] < 0 ? 0.0f : shares[live.ids[i]]);
  }
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// ids [T], hidden [T, hidden] of the tokens before; normed and raw as `leadline_run_stack`. Returns 2 for an id that
// is no token.
LEADLINE_API int leadline_run_mtp(const Stack* stack, const Pairing* pairing, const Step* step, const int64_t* ids,
                                  const void* hidden, void* normed, void* raw, int num_threads) {
  if (!ids_exist(*pairing, ids, step->num_tokens)) return 2;
  const void* x = pair(*stack, *pairing, ids, hidden, step->num_tokens, num_threads);
  return leadline_run_stack(stack, step, x, normed, raw, num_threads);
}

// Only writes the entries of these pairs.
LEADLINE_API int leadline_write_mtp(const Stack* stack, const Pairing* pairing, const Step* step, const int64_t* ids,
                                    const void* hidden, int num_threads) {
  if (!ids_exist(*pairing, ids, step->num_tokens)) return 2;
  const void* x = pair(*stack, *pairing, ids, hidden, step->num_tokens, num_threads);
  return leadline_write_stack(stack, step, x, num_threads);
}

// Drafts for all rows, depth by depth; `pool` has the pages and the rows' page tables. A chain ends at its last
// draft, at a token that ends the text, or at one that is unlikely.
LEADLINE_API int leadline_draft(const Stack* stack, const Pairing* pairing, const Step* pool, const Chain* chain,
                                int num_threads) {
  const int64_t bytes = stack->hidden * item_bytes(stack->format);
  std::vector<int64_t> next(chain->tokens, chain->tokens + chain->num_rows), ends(chain->num_rows + 1, 0);
  if (!ids_exist(*pairing, next.data(), chain->num_rows)) return 2;
  Live live;
  char* hidden = static_cast<char*>(room(*stack, buffers.hidden, chain->num_rows, stack->hidden));
  *chain->passes = 0;
  for (int64_t row = 0; row < chain->num_rows; ++row) {
    chain->counts[row] = 0;
    ends[row + 1] = ends[row] + chain->end_counts[row];
    if (chain->num_drafts[row] > 0) live.rows.push_back(row);
  }
  for (size_t i = 0; i < live.rows.size(); ++i)
    std::memcpy(hidden + i * bytes, static_cast<const char*>(chain->hidden) + live.rows[i] * bytes, bytes);
  while (!live.rows.empty()) {
    const Step step = step_of(*pool, *chain, next, live);
    *chain->passes += step.num_tokens;
    void* normed = room(*stack, buffers.after, step.num_tokens, stack->hidden);
    void* raw = room(*stack, buffers.before, step.num_tokens, stack->hidden);
    const int failed = leadline_run_mtp(stack, pairing, &step, live.tokens.data(), hidden, normed, raw, num_threads);
    if (failed) return failed;
    std::vector<float> probabilities;
    sample(*stack, *pairing, *chain, normed, live, probabilities, num_threads);
    const char* kept = static_cast<const char*>(chain->after_norm ? normed : raw);
    std::vector<int64_t> going_on;
    for (size_t i = 0; i < live.rows.size(); ++i) {
      const int64_t row = live.rows[i], id = live.ids[i];
      if (id < 0 || !(probabilities[i] >= chain->least_probability)) continue;
      chain->drafts[row * chain->most_drafts + chain->counts[row]++] = next[row] = id;
      bool goes_on = chain->counts[row] < chain->num_drafts[row];
      for (int64_t e = ends[row]; e < ends[row + 1]; ++e) goes_on &= chain->end_ids[e] != id;
      if (!goes_on) continue;
      std::memcpy(hidden + going_on.size() * bytes, kept + i * bytes, bytes);
      going_on.push_back(row);
    }
    live.rows = going_on;
  }
  return 0;
}
