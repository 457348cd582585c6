// What the launchers share: the grid, and the call of the kernels that are compiled apart, for Hopper.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/gpu/gpu.h"

namespace minillm::attention {

// Blocks of `rows` rows: heads along x, which may be 2^31 - 1 long; rows along y, which ends at 65,535.
inline dim3 grid_of(const Sizes& n, int rows) {
    const int64_t blocks = (n.T + int64_t(rows) - 1) / rows;
    if (n.heads() > 0x7fffffff)
        throw std::runtime_error("B * n_head must be below 2^31: got " + std::to_string(n.heads()));
    if (blocks > 65535)
        throw std::runtime_error("T must be at most " + std::to_string(65535LL * rows) + ": got " +
                                 std::to_string(n.T));
    return dim3(unsigned(n.heads()), unsigned(blocks));
}

// Variant 4 forward, for HS up to 128 in 16-byte chunks; defined in launch_wgmma.cu.
template <class E>
void launch_wgmma(const Forward<E>& a, const Sizes& n, stream_t stream);

}  // namespace minillm::attention
