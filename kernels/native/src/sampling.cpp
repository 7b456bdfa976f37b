// Sampling by the Gumbel-max trick: cuts, noise and the best token of each row, as kernels/reference/sample.py.
#include <algorithm>
#include <cmath>
#include <vector>

#include "calls.h"

namespace leadline {
namespace {

constexpr int64_t kNanLogits = -1, kNoToken = -2;  // see kernels/sampling.py

bool has_nan(const float* values, int64_t count) {
  bool found = false;
  for (int64_t i = 0; i < count; ++i) found |= values[i] != values[i];
  return found;
}

// The first of the largest.
int64_t best_of(const float* values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (values[i] > values[best]) best = i;
  return best;
}

void cut_below(std::vector<float>& values, float floor) {
  for (float& value : values)
    if (value < floor) value = -INFINITY;
}

void cut_top_k(std::vector<float>& values, int64_t k) {
  std::vector<float> ordered(values);
  std::nth_element(ordered.begin(), ordered.begin() + (k - 1), ordered.end(), std::greater<float>());
  cut_below(values, ordered[k - 1]);
}

// The smallest head of the descending values whose probability reaches `top_p`.
void cut_top_p(std::vector<float>& values, float top_p) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i)
    if (values[i] > -INFINITY) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  if (order.empty()) return;
  const float top = values[order[0]];
  double total = 0.0, before = 0.0;
  for (int64_t i : order) total += std::exp(static_cast<double>(values[i]) - top);
  for (int64_t i : order) {
    const double probability = std::exp(static_cast<double>(values[i]) - top) / total;
    if (static_cast<float>(before) >= top_p) values[i] = -INFINITY;
    before += probability;
  }
}

// Temperature, then min-p, top-k and top-p cuts of one row, which has no NaN.
std::vector<float> cut_row(const float* logits, int64_t vocab, const SamplingParameters& p, int64_t row, bool cuts) {
  const float temperature = p.temperature[row];
  std::vector<float> values(vocab);
  for (int64_t i = 0; i < vocab; ++i) values[i] = logits[i] / (temperature > 0.0f ? temperature : 1.0f);
  if (cuts) {
    if (p.min_p[row] > 0.0f)
      cut_below(values, *std::max_element(values.begin(), values.end()) + std::log(p.min_p[row]));
    if (p.top_k[row] > 0 && p.top_k[row] < vocab) cut_top_k(values, p.top_k[row]);
    if (p.top_p[row] < 1.0f) cut_top_p(values, p.top_p[row]);
  }
  return values;
}

// One row, which has no NaN.
int64_t sample_row(const float* logits, int64_t vocab, const SamplingParameters& p, int64_t row, bool cuts) {
  if (p.temperature[row] == 0.0f) return best_of(logits, vocab);
  const std::vector<float> values = cut_row(logits, vocab, p, row, cuts);
  float noise[64], best = -INFINITY;
  int64_t best_id = 0;
  for (int64_t first = 0; first < vocab; first += 64) {
    kernels->gumbel_noise(static_cast<uint64_t>(p.seeds[row]), static_cast<uint32_t>(p.positions[row]), first, noise);
    for (int64_t i = first; i < smaller_of(first + 64, vocab); ++i) {
      const float score = values[i] + noise[i - first];
      if (score > best) {
        best = score;
        best_id = i;
      }
    }
  }
  return best_id;
}

}  // namespace
}  // namespace leadline

using namespace leadline;

// ids[row] from `adjusted`, which is `logits` itself where nobody has rules.
LEADLINE_API int leadline_sample(const float* logits, const float* adjusted, int64_t rows, int64_t stride,
                                 int64_t vocab, const void* packed, int32_t cuts, int64_t* ids, int num_threads) {
  const SamplingParameters parameters = *static_cast<const SamplingParameters*>(packed);
  share(rows, threads_for(rows * vocab * 40, num_threads), [&](int64_t row) {
    const float* values = adjusted + row * stride;
    if (has_nan(logits + row * stride, vocab)) {
      ids[row] = kNanLogits;
    } else if (adjusted != logits && values[best_of(values, vocab)] == -INFINITY) {
      ids[row] = kNoToken;
    } else {
      ids[row] = sample_row(values, vocab, parameters, row, cuts != 0);
    }
  });
  return 0;
}

// out[rows, vocab] = the logits as tokens are sampled from them; `forced` is null, or a token of each row or -1. A row
// with a NaN is divided by its temperature alone.
LEADLINE_API int leadline_process_logits(const float* adjusted, int64_t rows, int64_t stride, int64_t vocab,
                                         const void* packed, int32_t cuts, const int64_t* forced, float* out,
                                         int num_threads) {
  const SamplingParameters parameters = *static_cast<const SamplingParameters*>(packed);
  share(rows, threads_for(rows * vocab * 4, num_threads), [&](int64_t row) {
    const float* logits = adjusted + row * stride;
    float* to = out + row * vocab;
    if (forced != nullptr && forced[row] >= 0) {
      std::fill(to, to + vocab, -INFINITY);
      if (forced[row] < vocab) to[forced[row]] = 0.0f;
      return;
    }
    const bool has_cuts = cuts != 0 && !has_nan(logits, vocab);
    const std::vector<float> values = cut_row(logits, vocab, parameters, row, has_cuts);
    std::copy(values.begin(), values.end(), to);
  });
  return 0;
}

// Noise alone, for tests: out[vocab rounded up to 64].
LEADLINE_API int leadline_gumbel_noise(int64_t seed, int64_t position, int64_t vocab, float* out) {
  for (int64_t first = 0; first < vocab; first += 64)
    kernels->gumbel_noise(static_cast<uint64_t>(seed), static_cast<uint32_t>(position), first, out + first);
  return 0;
}
