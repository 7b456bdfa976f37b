// Gumbel noise (kernels/sampling.py says of what). Included once by each instruction set's build, inside its
// namespace.

// Natural logarithm of a positive number that is not subnormal (Cephes, logf).
static inline Lanes logarithm(Lanes x) {
  float values[kLanes], mantissas[kLanes], exponents[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; ++i) {  // x = mantissa * 2 ^ exponent, the mantissa in [sqrt(1/2), sqrt(2))
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof(bits));
    const uint32_t shifted = bits - 0x3F3504F3;
    const int32_t exponent = static_cast<int32_t>(shifted) >> 23;
    bits -= static_cast<uint32_t>(exponent) << 23;
    std::memcpy(&mantissas[i], &bits, sizeof(bits));
    exponents[i] = static_cast<float>(exponent);
  }
  const Lanes m = load(mantissas) - all(1.0f), e = load(exponents), square = m * m;
  Lanes p = fma(all(7.0376836292e-2f), m, all(-1.1514610310e-1f));
  p = fma(p, m, all(1.1676998740e-1f));
  p = fma(p, m, all(-1.2420140846e-1f));
  p = fma(p, m, all(1.4249322787e-1f));
  p = fma(p, m, all(-1.6668057665e-1f));
  p = fma(p, m, all(2.0000714765e-1f));
  p = fma(p, m, all(-2.4999993993e-1f));
  p = fma(p, m, all(3.3333331174e-1f));
  p = p * m * square;
  p = fma(e, all(-2.12194440e-4f), p);
  p = fma(square, all(-0.5f), p);
  return fma(e, all(0.693359375f), m + p);
}

// log(1 - u) for u in (0, 1), exact to some units in the last place down to the smallest u (Kahan).
static inline Lanes log_of_rest(Lanes u) {
  float rests[kLanes], us[kLanes], logs[kLanes];
  store(rests, all(1.0f) - u);
  store(us, u);
  store(logs, logarithm(load(rests)));
  for (int i = 0; i < kLanes; ++i) logs[i] = rests[i] == 1.0f ? -us[i] : logs[i] * (us[i] / (1.0f - rests[i]));
  return load(logs);
}

// Noise of 64 tokens from `first` on, a multiple of 4: sixteen Philox4x32-10 counters side by side.
static void gumbel_noise(uint64_t seed, uint32_t position, int64_t first, float* out) {
  uint32_t x0[16], x1[16], x2[16] = {}, x3[16] = {};
  for (int i = 0; i < 16; ++i) {
    x0[i] = static_cast<uint32_t>(first / 4 + i);
    x1[i] = position;
  }
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 16; ++i) {
      const uint64_t a = static_cast<uint64_t>(x0[i]) * 0xD2511F53u, b = static_cast<uint64_t>(x2[i]) * 0xCD9E8D57u;
      x0[i] = static_cast<uint32_t>(b >> 32) ^ x1[i] ^ key0;
      x1[i] = static_cast<uint32_t>(b);
      x2[i] = static_cast<uint32_t>(a >> 32) ^ x3[i] ^ key1;
      x3[i] = static_cast<uint32_t>(a);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (int i = 0; i < 16; ++i) {
    out[4 * i] = static_cast<float>(x0[i]);
    out[4 * i + 1] = static_cast<float>(x1[i]);
    out[4 * i + 2] = static_cast<float>(x2[i]);
    out[4 * i + 3] = static_cast<float>(x3[i]);
  }
  for (int k = 0; k < 64; k += kLanes) {
    // k + 0.5 rounds to 2^32 for the largest k: u stays below 1.
    const Lanes u = smaller(all(1.0f - 0x1p-24f), (load(out + k) + all(0.5f)) * all(0x1p-32f));
    store(out + k, zero() - logarithm(zero() - log_of_rest(u)));
  }
}
