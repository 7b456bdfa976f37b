// The library's version, its instruction set, and memory.
#include <cstdlib>

#include "common.h"

namespace leadline {
namespace {

const Kernels* choose_kernels(int level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vbmi");
  if (avx512 && level >= 2) return &kAvx512Kernels;
  if (avx2 && level >= 1) return &kAvx2Kernels;
#endif
  (void)level;
  return &kPortableKernels;
}

}  // namespace

const Kernels* kernels = choose_kernels(2);

Scratch::~Scratch() { std::free(data_); }

float* Scratch::get(int64_t count) {
  if (count > size_) {
    std::free(data_);
    size_ = round_up(count, 1024);
    data_ = static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float)));
    if (data_ == nullptr) std::abort();  // no caller could go on without it
  }
  return data_;
}

}  // namespace leadline

// Goes up with every change of a function's arguments.
LEADLINE_API int leadline_abi_version() { return 2; }

LEADLINE_API const char* leadline_instructions() { return leadline::kernels->name; }

// For tests: 0 portable, 1 up to AVX2, 2 the best that the machine has.
LEADLINE_API void leadline_limit_instructions(int level) { leadline::kernels = leadline::choose_kernels(level); }

// For benchmarks: `rounds` of 384 floating-point operations on each thread, with nothing read or written.
LEADLINE_API int leadline_multiply_alone(int64_t rounds, int num_threads) {
  leadline::share(num_threads, num_threads, [&](int64_t) {
    volatile float value = 1.0f;  // or all of it would be computed by the compiler
    float out = value;
    leadline::kernels->multiply_alone(rounds, &out);
    value = out;
  });
  return 0;
}
