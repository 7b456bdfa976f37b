// What all functions that Python calls share.
#pragma once

#include "team.h"
#include "types.h"

#define LEADLINE_API extern "C" __attribute__((visibility("default")))

namespace leadline {

extern const Kernels* kernels;  // of the best instruction set that the machine has

// Float32 memory of one thread, used again by its next call.
class Scratch {
 public:
  ~Scratch();
  float* get(int64_t count);

 private:
  float* data_ = nullptr;
  int64_t size_ = 0;
};

inline int64_t item_bytes(int64_t format) { return format == kFloat32 ? 4 : format == kBFloat16 ? 2 : 1; }

inline const char* at(const void* data, int64_t format, int64_t element) {
  return static_cast<const char*>(data) + element * item_bytes(format);
}

inline int64_t num_blocks(int64_t columns, int64_t at_once = kBlockColumns) {
  return (columns + at_once - 1) / at_once;
}

inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

// The threads for `work` steps, each of about a product: one, if to wake others would take longer.
inline int threads_for(int64_t work, int num_threads) { return work < 600000 ? 1 : num_threads; }

}  // namespace leadline
