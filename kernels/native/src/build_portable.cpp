// The kernels for any machine, in GNU vectors.
#include <cstring>

#include "types.h"

namespace leadline {
namespace portable {
constexpr const char* kName = "portable";
constexpr int kTileRows = 2, kTileColumns = 2;
constexpr int kFp8TileRows = 2, kWideFp8Rows = 3, kWideFp8Columns = 1;
constexpr int kDirectRows = 6, kDirectFp8Rows = 4;
#include "lanes_portable.h"

#include "kernels.h"
}  // namespace portable

const Kernels kPortableKernels = portable::kTable;
}  // namespace leadline
