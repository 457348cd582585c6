// Attention in which groups of query heads share a head of keys and values. Formulas: minillm/ops/grouped_attention.py.
//
// The kernels are those of attention/1_naive.cuh and 2_flash.cuh, which know of groups, windows, sinks and the soft-cap: no
// head of keys is repeated in memory. Backward, a block owns rows of a head of keys and walks over the query heads of its
// group, one after the other, so dk and dv have one order of addition. What is here is the gradient of the sinks.
#pragma once

#include "cuda/attention/common.cuh"
#include "cuda/ops/softmax.cuh"

namespace minillm::grouped_attention {
using attention::Sizes;

// dsink = -sum over b and t of exp(sink - logsumexp[b, t]) * delta[b, t] of its head: a block a head.
template <class T>
__global__ void sink_gradients(T* dsinks, const T* sinks, const T* lse, const T* delta, Sizes n) {
    SHARED(T, room);
    const int64_t h = blockIdx.x;
    T mine = 0;
    for (int64_t b = 0; b < n.B; b++)
        for (int64_t t = threadIdx.x; t < n.T; t += blockDim.x) {
            const int64_t i = (b * n.NH + h) * n.T + t;
            mine -= exp(sinks[h] - lse[i]) * delta[i];
        }
    mine = softmax::block_sum(mine, room);
    if (threadIdx.x == 0) dsinks[h] = mine;
}
}  // namespace minillm::grouped_attention
