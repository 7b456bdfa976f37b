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

}  // namespace leadline
