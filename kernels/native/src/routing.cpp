// The experts of each token: chosen, rows sorted by expert, and outputs summed (DeepSeek-V3, section 2.1.2).
#include <cstring>
#include <vector>

#include "calls.h"

namespace leadline {
namespace {

// The `count` largest, largest first; of equals the smaller index, and a NaN is the largest of all.
void take_largest(const float* scores, int64_t num, int64_t count, std::vector<char>& taken, int64_t* out) {
  taken.assign(num, 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t best = -1;
    for (int64_t j = 0; j < num; ++j) {
      if (taken[j]) continue;
      const bool better = best < 0 || scores[j] > scores[best] ||
                          (scores[j] != scores[j] && scores[best] == scores[best]);
      if (better) best = j;
    }
    taken[best] = 1;
    out[i] = best;
  }
}

float group_score(const float* scores, int64_t width, bool sum_of_two) {
  float first = scores[0], second = -__builtin_inff();
  for (int64_t i = 1; i < width; ++i) {
    if (scores[i] > first) {
      second = first;
      first = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return sum_of_two && width > 1 ? first + second : first;
}

// Experts outside of the best groups go to -inf.
void mask_groups(const Router& router, int64_t num_experts, std::vector<char>& taken, float* choice) {
  const int64_t width = num_experts / router.num_groups;
  std::vector<float> scores(router.num_groups);
  std::vector<int64_t> best(router.num_top_groups);
  for (int64_t g = 0; g < router.num_groups; ++g)
    scores[g] = group_score(choice + g * width, width, router.sum_of_two != 0);
  take_largest(scores.data(), router.num_groups, router.num_top_groups, taken, best.data());
  for (int64_t e = 0; e < num_experts; ++e)
    if (!taken[e / width]) choice[e] = -__builtin_inff();
}

}  // namespace
}  // namespace leadline

using namespace leadline;

LEADLINE_API int leadline_route(const float* logits, int64_t rows, int64_t stride, int64_t num_experts,
                                const float* bias, const void* packed, int64_t* ids, float* weights) {
  const Router router = *static_cast<const Router*>(packed);
  std::vector<float> scores(num_experts), choice(num_experts);
  std::vector<char> taken;
  for (int64_t row = 0; row < rows; ++row) {
    const auto score_row = router.softmax ? kernels->softmax_row : kernels->sigmoid_row;
    score_row(logits + row * stride, num_experts, scores.data());
    for (int64_t e = 0; e < num_experts; ++e) choice[e] = bias == nullptr ? scores[e] : scores[e] + bias[e];
    if (router.num_groups > 1) mask_groups(router, num_experts, taken, choice.data());
    int64_t* row_ids = ids + row * router.top_k;
    float* row_weights = weights + row * router.top_k;
    take_largest(choice.data(), num_experts, router.top_k, taken, row_ids);
    float total = 0.0f;
    for (int64_t k = 0; k < router.top_k; ++k) total += row_weights[k] = scores[row_ids[k]];
    for (int64_t k = 0; k < router.top_k; ++k) {
      if (router.renormalize) row_weights[k] /= total + 1e-20f;
      row_weights[k] *= static_cast<float>(router.scaling_factor);
    }
  }
  return 0;
}

// Sorts the choices by expert, then by token; returns 1 for an id that is no expert.
LEADLINE_API int leadline_permute(const void* x, int64_t row_bytes, int64_t stride_bytes, const int64_t* ids,
                                  int64_t num_tokens, int64_t top_k, int64_t num_experts, void* y, int64_t* order,
                                  int64_t* counts) {
  const int64_t num_rows = num_tokens * top_k;
  for (int64_t i = 0; i < num_rows; ++i) {
    if (ids[i] < 0 || ids[i] >= num_experts) return 1;
    ++counts[ids[i]];
  }
  std::vector<int64_t> next(num_experts);
  for (int64_t e = 0, first = 0; e < num_experts; first += counts[e++]) next[e] = first;
  for (int64_t i = 0; i < num_rows; ++i) {
    const int64_t place = next[ids[i]]++;
    order[place] = i;
    std::memcpy(static_cast<char*>(y) + place * row_bytes,
                static_cast<const char*>(x) + i / top_k * stride_bytes, row_bytes);
  }
  return 0;
}

// y[token] = sum of weights[token, k] times the row of that choice, k in order; returns 1 for an order that is no
// permutation.
LEADLINE_API int leadline_unpermute(const void* rows, int32_t format, int64_t num_tokens, int64_t stride,
                                    int64_t columns, const int64_t* order, const float* weights, int64_t top_k,
                                    void* y) {
  const int64_t num_rows = num_tokens * top_k;
  std::vector<int64_t> place(num_rows, -1);
  for (int64_t i = 0; i < num_rows; ++i) {
    if (order[i] < 0 || order[i] >= num_rows || place[order[i]] >= 0) return 1;
    place[order[i]] = i;
  }
  std::vector<float> values(columns), total(columns);
  for (int64_t token = 0; token < num_tokens; ++token) {
    for (int64_t k = 0; k < top_k; ++k) {
      const int64_t choice = token * top_k + k;
      kernels->widen_row(at(rows, format, place[choice] * stride), format, columns, columns, values.data());
      const float weight = weights[choice];
      for (int64_t c = 0; c < columns; ++c) {
        const float share = values[c] * weight;
        total[c] = k == 0 ? share : total[c] + share;
      }
    }
    kernels->narrow_row(total.data(), columns, format, const_cast<char*>(at(y, format, token * columns)));
  }
  return 0;
}
