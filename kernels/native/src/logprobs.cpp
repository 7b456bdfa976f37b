// Log-probabilities of one token of each row, and of the most likely ones.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common.h"

namespace leadline {
namespace {

thread_local Scratch shares;

struct Logprobs {
  double largest, log_total;  // NaN in a row that has no distribution
  float of(float logit) const { return static_cast<float>(static_cast<double>(logit) - largest - log_total); }
};

Logprobs distribution(const float* logits, int64_t vocab) {
  bool nan = false;
  int64_t best = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    nan |= logits[i] != logits[i];
    if (logits[i] > logits[best]) best = i;
  }
  if (nan || !std::isfinite(logits[best])) return {NAN, NAN};
  float* probabilities = shares.get(vocab);
  kernels->softmax_row(logits, vocab, probabilities);
  return {logits[best], -std::log(static_cast<double>(probabilities[best]))};
}

// The ids of the largest logits, the largest first, of equals the lowest id.
void take_top(const float* logits, int64_t vocab, int64_t count, bool is_number, int64_t* ids) {
  std::vector<int64_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  if (is_number) {
    std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int64_t a, int64_t b) {
      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    });
  }
  std::copy(order.begin(), order.begin() + count, ids);
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// For each row its token's log-probability and rank, and the `num_top` (at most `vocab`) most likely tokens. A row with
// a NaN, or with no finite maximum, has NaN for all of them. Returns 1 for a token that there is not.
LEADLINE_API int leadline_token_logprobs(const float* logits, int64_t rows, int64_t stride, int64_t vocab,
                                         const int64_t* ids, int64_t num_top, float* own, int64_t* ranks,
                                         int64_t* top_ids, float* top, int num_threads) {
  for (int64_t row = 0; row < rows; ++row)
    if (ids[row] < 0 || ids[row] >= vocab) return 1;
  share(rows, threads_for(rows * vocab * 20, num_threads), [&](int64_t row) {
    const float* values = logits + row * stride;
    const Logprobs logprobs = distribution(values, vocab);
    const bool is_number = logprobs.largest == logprobs.largest;
    const float mine = values[ids[row]];
    own[row] = logprobs.of(mine);
    ranks[row] = 1;
    for (int64_t i = 0; is_number && i < vocab; ++i) ranks[row] += values[i] > mine;
    if (num_top == 0) return;
    take_top(values, vocab, num_top, is_number, top_ids + row * num_top);
    for (int64_t i = 0; i < num_top; ++i)
      top[row * num_top + i] = logprobs.of(values[top_ids[row * num_top + i]]);
  });
  return 0;
}
