// What all variants share: the rows of a head, sums over lanes, delta, and the grid.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/gpu/gpu.h"

namespace minillm::attention {
template <class T>
struct Rows {
    T* data;
    int64_t stride;
    DEVICE T* operator[](int64_t t) const { return data + t * stride; }
};

// The rows of head bh = b * NH + h.
template <class T>
DEVICE Rows<T> rows_of(const View<T>& view, int64_t bh, const Sizes& n) {
    return {view.data + bh / n.NH * view.batch + bh % n.NH * view.head, view.row};
}

// Over LANES neighbouring lanes; every one of them gets the result, added in the same order.
template <int LANES, class T>
DEVICE T lanes_sum(T x) {
    UNROLL_FOR (int step = LANES / 2; step; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}
template <int LANES, class T>
DEVICE T lanes_max(T x) {
    UNROLL_FOR (int step = LANES / 2; step; step /= 2) x = max(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

// May row `row` (who looks) see column `column` (who is looked at)? Both may lie past the end.
DEVICE bool is_seen(int row, int column, const Sizes& n) {
    return row < n.T && column < n.T && (!n.causal || column <= row);
}

// delta[t] = dout[t] . out[t], which equals sum_s P[t,s] dP[t,s] (minillm/ops/attention.py). One warp a row.
constexpr int DELTA_WARPS = 8;
template <class T>
__global__ void attention_delta(Backward<T> a, Sizes n) {
    const int64_t bh = blockIdx.x, t = int64_t(blockIdx.y) * DELTA_WARPS + threadIdx.x / 32;
    if (t >= n.T) return;
    const T *out = rows_of(a.out, bh, n)[t], *dout = rows_of(a.dout, bh, n)[t];
    Sum<T> sum = 0;
    for (int d = threadIdx.x % 32; d < n.HS; d += 32) sum += Sum<T>(dout[d]) * Sum<T>(out[d]);
    sum = lanes_sum<32>(sum);
    if (threadIdx.x % 32 == 0) a.delta[bh * n.T + t] = sum;
}

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
