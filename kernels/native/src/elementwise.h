// Rows of values, element by element. Included once by each instruction set's build, inside its namespace.

static void widen_row(const void* row, int32_t format, int64_t columns, int64_t padded, float* out) {
  int64_t k = 0;
  for (; k + kLanes <= columns; k += kLanes) {
    store(out + k, format == kFloat32 ? load(static_cast<const float*>(row) + k)
                                      : load_bfloat16(static_cast<const uint16_t*>(row) + k));
  }
  int64_t left = columns - k;
  if (left > 0) {
    store_some(out + k,
               format == kFloat32 ? load_some(static_cast<const float*>(row) + k, left)
                                  : load_bfloat16_some(static_cast<const uint16_t*>(row) + k, left),
               left);
  }
  for (k = columns; k < padded; ++k) out[k] = 0.0f;
}

static inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static void narrow_row(const float* row, int64_t columns, int32_t format, void* out) {
  if (format == kFloat32) {
    std::memcpy(out, row, columns * sizeof(float));
    return;
  }
  for (int64_t k = 0; k < columns; ++k) static_cast<uint16_t*>(out)[k] = to_bfloat16(row[k]);
}

// e ^ x: 2 ^ n times a polynomial on [-log(2) / 2, log(2) / 2] (Cephes, expf); 0 where that is subnormal.
static inline Lanes exponential(Lanes x) {
  const Lanes lowest = all(-87.3365f), highest = all(88.7228f);
  Lanes bounded = smaller(highest, larger(lowest, x));
  Lanes n = nearest(bounded * all(1.44269504088896341f));
  Lanes r = fma(n, all(-0.693359375f), bounded);
  r = fma(n, all(2.12194440e-4f), r);
  Lanes p = fma(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r) + all(1.0f);
  Lanes half = nearest(n * all(0.5f));  // 2 ^ 128 has no float32 of its own
  return zero_below(x, lowest, p * power_of_two(half) * power_of_two(n - half));
}

static inline Lanes silu(Lanes x) { return x / (all(1.0f) + exponential(zero() - x)); }

static void swiglu_row(const float* gate, const float* up, int64_t columns, float* out) {
  int64_t k = 0;
  for (; k + kLanes <= columns; k += kLanes) store(out + k, silu(load(gate + k)) * load(up + k));
  int64_t left = columns - k;
  if (left > 0) store_some(out + k, silu(load_some(gate + k, left)) * load_some(up + k, left), left);
}

// x / rms(x) * weight; may be in place.
static void norm_row(const float* x, const float* weight, int64_t columns, float eps, float* out) {
  Lanes squares = zero();
  int64_t k = 0;
  for (; k + kLanes <= columns; k += kLanes) squares = fma(load(x + k), load(x + k), squares);
  const int64_t left = columns - k;
  if (left > 0) squares = fma(load_some(x + k, left), load_some(x + k, left), squares);
  const Lanes factor = all(1.0f / __builtin_sqrtf(fold(squares) / static_cast<float>(columns) + eps));
  for (k = 0; k + kLanes <= columns; k += kLanes) store(out + k, load(x + k) * factor * load(weight + k));
  if (left > 0) store_some(out + k, load_some(x + k, left) * factor * load_some(weight + k, left), left);
}

static void sigmoid_row(const float* x, int64_t columns, float* out) {
  for (int64_t k = 0; k < columns; k += kLanes) {
    int64_t count = columns - k < kLanes ? columns - k : kLanes;
    store_some(out + k, all(1.0f) / (all(1.0f) + exponential(zero() - load_some(x + k, count))), count);
  }
}

static void softmax_row(const float* x, int64_t columns, float* out) {
  float most = -__builtin_inff();
  for (int64_t k = 0; k < columns; ++k) most = x[k] > most ? x[k] : most;
  Lanes sum = zero();
  for (int64_t k = 0; k < columns; k += kLanes) {
    int64_t count = columns - k < kLanes ? columns - k : kLanes;
    float powers[kLanes] = {};
    store_some(powers, exponential(load_some(x + k, count) - all(most)), count);
    sum = sum + load(powers);
    store_some(out + k, load(powers), count);
  }
  const float total = fold(sum);
  for (int64_t k = 0; k < columns; ++k) out[k] /= total;
}

// `rounds` times 12 products and sums in registers: what the machine could do, for benchmarks.
static void multiply_alone(int64_t rounds, float* out) {
  Lanes sums[12];
  for (auto& sum : sums) sum = all(*out);
  const Lanes factor = all(*out * 0.5f);
  for (int64_t round = 0; round < rounds; ++round)
    for (auto& sum : sums) sum = fma(sum, factor, factor);
  Lanes total = zero();
  for (auto& sum : sums) total = total + sum;
  *out = fold(total);
}
