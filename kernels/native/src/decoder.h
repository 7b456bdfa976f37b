// What a stack of decoder layers is made of, as Python packs it: eight bytes a field (decoder.py).
#pragma once

#include "calls.h"

namespace leadline {

// A norm's weight; `data` is null where there is none.
struct Gain {
  const void* data;
  int64_t format;
};

// A linear layer of `outs` outputs, none where there is none.
struct Projection {
  Weight weight;
  int64_t outs;
};

// One weight [heads, rows, latent rank]; strides in elements.
struct PerHead {
  const void* data;
  int64_t format, head, row;
};

struct MLAWeights {
  Projection q_a;  // without it, q_b takes the hidden state
  Gain q_a_norm;
  Projection q_b, kv_a;
  Gain kv_a_norm;
  PerHead w_uk, w_uv;
  Projection o;
};

struct DenseMLP {
  Projection gate_up, down;
};

struct Experts {
  Projection gate;  // of float32; without it, the layer's MLP is dense
  const float* bias;
  Router router;
  Projection gate_up;  // the first expert's
  int64_t gate_up_scales;
  Projection down;
  int64_t down_scales;
  int64_t num_experts;
  int64_t* num_chosen;  // how many tokens each expert has had
};

struct Layer {
  Gain input_norm;
  MLAWeights attention;
  Gain post_norm;
  DenseMLP dense;  // the shared expert, where there are experts
  Experts experts;
};

struct Stack {
  const Layer* layers;
  int64_t num_layers;
  Gain norm;  // after the last layer
  int64_t format;  // of the hidden states
  int64_t hidden, heads, nope, rope, latent_rank, value;
  int64_t first_layer, first_slot;  // in the cache
  double eps, latent_eps, scale;
  const float *cosines, *sines;  // [positions, rope / 2]
};

// The tokens of one step, and the pages of all layers, `layer_bytes` apart.
struct Step {
  int64_t num_tokens, num_rows;
  const int64_t *positions, *slots;      // [T]
  const int64_t *query_lens, *seq_lens;  // [B]
  const int64_t* page_table;             // [B, ..]
  int64_t table_stride;
  char* pages;
  int64_t layer_bytes, num_slots, page_format, page_size, width;
};

// What the multi-token prediction layer has beside its transformer layer (DeepSeek-V3, section 2.2).
struct Pairing {
  const void* embedding;  // [vocabulary, hidden], of the hidden states' format
  int64_t vocabulary;
  Gain enorm, hnorm;
  Projection eh, head;
};

// Requests whose next tokens are to be drafted, B of them; each pass of the layer drafts one for all that go on.
struct Chain {
  int64_t num_rows;
  const int64_t *tokens, *positions;  // [B] of the last known token
  const int64_t* num_drafts;          // [B] at most
  const void* hidden;                 // [B, hidden] of the token before
  const int64_t *end_ids, *end_counts;  // tokens that end a request's text, request after request; [B]
  const float* temperature;
  const int64_t* top_k;
  const float *top_p, *min_p;
  const int64_t* seeds;
  int64_t cuts;
  double least_probability;  // a draft less likely than this ends its chain and is dropped
  int64_t after_norm;        // whether a pass takes the last one's hidden state after the norm
  int64_t most_drafts;
  int64_t* drafts;  // out [B, most_drafts]
  int64_t* counts;  // out [B]
  int64_t* passes;  // out: rows of all passes together
};

}  // namespace leadline

LEADLINE_API int leadline_run_stack(const leadline::Stack* stack, const leadline::Step* step, const void* x,
                                    void* normed, void* raw, int num_threads);
LEADLINE_API int leadline_write_stack(const leadline::Stack* stack, const leadline::Step* step, const void* x,
                                      int num_threads);
