// What all variants share: the rows of a head, sums over lanes, and delta.
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

}  // namespace minillm::attention
