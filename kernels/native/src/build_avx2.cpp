// The kernels for AVX2 with FMA and F16C.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#include <cstring>

#include "types.h"

namespace leadline {
namespace avx2 {
constexpr const char* kName = "AVX2";
constexpr int kTileRows = 3, kTileColumns = 2;  // 6 sums in 12 of 16 registers
constexpr int kFp8TileRows = 4, kWideFp8Rows = 3, kWideFp8Columns = 1;
constexpr int kDirectRows = 6, kDirectFp8Rows = 4;
#include "lanes_avx2.h"

#include "kernels.h"
}  // namespace avx2

const Kernels kAvx2Kernels = avx2::kTable;
}  // namespace leadline
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
