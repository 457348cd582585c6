// What all variants share: the rows of a head, sums over lanes, delta, and the grid.
#pragma once

#include <algorithm>

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

// Those of the head of keys or values that query head bh reads.
template <class T>
DEVICE Rows<T> shared_rows_of(const View<T>& view, int64_t bh, const Sizes& n) {
    return {view.data + bh / n.NH * view.batch + bh % n.NH / n.group * view.head, view.row};
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

// What a row's past shrinks by when its largest score rises from `old` to `top`: 2^((old - top) * scale2), 1 if it stays.
// As a difference of two products it would be contracted to a fused multiply-add, and the rounding error of the other
// product be left: a maximum that stays would shrink the past by 2^error, once a tile.
DEVICE float shrink_of(float old, float top, float scale2) {
    return old == top ? 1.0f : exp2_fast((old - top) * scale2);
}

// May row `row` (who looks) see column `column` (who is looked at)? Both may lie past the end.
DEVICE bool is_seen(int row, int column, const Sizes& n) {
    return row < n.T && column < n.T && (!n.causal || column <= row);
}

// The same with keys before the first query, and a window.
DEVICE bool sees(int query, int key, const Sizes& n) {
    const int place = query + n.past;
    return query < n.T && key < n.T + n.past && (!n.causal || key <= place) && (!n.window || key > place - n.window);
}
DEVICE int first_key(int query, const Sizes& n) {
    const int before = query + n.past - n.window;
    return n.window && before >= 0 ? before + 1 : 0;
}
DEVICE int queries_end(int64_t key, const Sizes& n) {                   // after the last query that sees it
    return n.window && key + n.window < n.T ? int(key + n.window) : n.T;
}

// The soft-cap of a score, and its slope there: minillm/ops/softcap.py.
template <class T>
DEVICE T capped(T score, const Sizes& n) {
    return n.cap ? T(n.cap) * tanh(score / T(n.cap)) : score;
}
template <class T>
DEVICE T slope_at(T score, const Sizes& n) {
    const T part = n.cap ? score / T(n.cap) : T(0);
    return 1 - part * part;
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

// Blocks of `rows` rows: heads along x, which may be 2^31 - 1 long; rows along y, which ends at
// 65,535. group: heads that one block walks over.
inline dim3 grid_of(const Sizes& n, int rows, int group = 1) {
    const int64_t blocks = (n.T + int64_t(rows) - 1) / rows;
    if (n.heads() > 0x7fffffff)
        throw std::runtime_error("B * n_head must be below 2^31: got " + std::to_string(n.heads()));
    if (blocks > 65535)
        throw std::runtime_error("T must be at most " + std::to_string(65535LL * rows) + ": got " +
                                 std::to_string(n.T));
    return dim3(unsigned(n.heads() / group), unsigned(blocks));
}

// The rows that all blocks of a head read one after the other, two arrays of 16-bit numbers, come from L2 if those of
// all heads at work fit there: Hopper's has 50 MB, but in halves, each of which keeps what its multiprocessors read;
// Ampere's 40. The emulator takes so few bytes that its tests see many groups.
#ifdef __CUDACC__
constexpr int64_t L2_SHARE = 12 << 20;
#else
constexpr int64_t L2_SHARE = 1536;
#endif

// Heads in groups, one after the other along z, whose streamed rows fit there. The GPU starts blocks in the order
// x, y, z.
inline dim3 grid_in_groups(const Sizes& n, int rows) {
    const dim3 all = grid_of(n, rows);
    const int64_t fit = std::max<int64_t>(L2_SHARE / (4 * int64_t(n.T) * n.HS), 1);
    const int64_t groups = (n.heads() + fit - 1) / fit;
    if (groups > 65535) return all;
    return dim3(unsigned((n.heads() + groups - 1) / groups), all.y, unsigned(groups));
}
// The last group may have blocks without a head: n.B * n.NH or more.
DEVICE int64_t head_of_block() { return int64_t(blockIdx.z) * gridDim.x + blockIdx.x; }

// Variant 4, for HS up to 128 in 16-byte chunks; defined in launch_wgmma.cu. The backward's delta is there already.
template <class E>
void launch_wgmma(const Forward<E>& a, const Sizes& n, stream_t stream);
template <class E>
void launch_wgmma(const Backward<E>& a, const Sizes& n, stream_t stream);
}  // namespace minillm::attention
