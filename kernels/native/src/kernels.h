// All kernels of one instruction set. Included once by each build, inside its namespace, after its lanes.
//
// Nothing here may call an inline function of the standard library: the linker keeps one copy of these,
// which might be the one that was built for instructions that the machine does not have.

#include "elementwise.h"
#include "product.h"

#include "attention.h"
#include "sampling.h"

static constexpr Kernels kTable = {
    kName,       product_block, widen_row, narrow_row,  swiglu_row,      norm_row,
    sigmoid_row, softmax_row,   combine,   attend_page, widen_fp8_entry, gumbel_noise,
    multiply_alone,
};
