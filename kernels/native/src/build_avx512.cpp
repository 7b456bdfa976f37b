// The kernels for AVX-512 with the byte permutations of VBMI (Ice Lake, Zen 4 and later).
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")
#endif
#include <immintrin.h>

#include <cstring>

#include "types.h"

namespace leadline {
namespace avx512 {
constexpr const char* kName = "AVX-512";
constexpr int kTileRows = 6, kTileColumns = 4;  // 24 sums in 32 registers
constexpr int kFp8TileRows = 8, kWideFp8Rows = 6, kWideFp8Columns = 2;
constexpr int kDirectRows = 64, kDirectFp8Rows = 7;
#include "lanes_avx512.h"

#include "kernels.h"
}  // namespace avx512

const Kernels kAvx512Kernels = avx512::kTable;
}  // namespace leadline
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
