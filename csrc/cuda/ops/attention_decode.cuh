// Attention of a decoding step: few queries against the keys and values of a KV cache. Formulas:
// minillm/ops/attention_decode.py.
//
// Step 1, naive: attention/1_naive.cuh, a warp a query and head, which walks over all keys: B * NH warps, while a GPU has
// room for thousands.
// Step 2, split over the keys: a block for each query, head and CHUNK keys. Its warps take four keys at a time, so that four
// rows are on their way from memory, and join what they have in shared memory; a last kernel joins the chunks in their
// order. The chunks do not depend on the batch, nor do the bits. Memory-bandwidth bound: each key and value is read once a
// query head. Many queries at once (a prompt in pieces) are a tile's work: attention/2_flash.cuh.
// What is left to gain: the query heads of a group read the same keys, from L2 but for the first.
#pragma once

#include "cuda/attention/1_naive.cuh"

namespace minillm::attention_decode {
using namespace attention;
constexpr int CHUNK = 256, WARPS = 4, KEYS = 4;  // keys of a block; warps; keys of a warp at a time
constexpr int FEW = 8;  // queries; for more flash is better

inline int chunks_of(const Sizes& n) { return int((int64_t(n.T) + n.past + CHUNK - 1) / CHUNK); }

// A softmax-weighted sum of values, not yet divided by `total`: at [0] and [1] top and total, behind them HS numbers.
template <class T>
DEVICE T* part_of(T* parts, int64_t i, const Sizes& n) {
    return parts + i * (n.HS + 2);
}

// to = the join of `count` parts, of a block's threads each some of the HS numbers; sink: or -inf for none.
template <class T, class Write>
DEVICE void join(const T* parts, int count, T sink, const Sizes& n, Write write) {
    T top = sink;
    for (int i = 0; i < count; i++) top = max(top, part_of(parts, i, n)[0]);
    const T base = top == T(-INFINITY) ? T(0) : top;
    T total = exp(sink - base);
    for (int i = 0; i < count; i++) total += part_of(parts, i, n)[1] * exp(part_of(parts, i, n)[0] - base);
    for (int d = threadIdx.x; d < n.HS; d += blockDim.x) {
        T sum = 0;
        for (int i = 0; i < count; i++) sum += part_of(parts, i, n)[2 + d] * exp(part_of(parts, i, n)[0] - base);
        write(d, sum, top, total);
    }
}

// parts: (B * NH * T, chunks). Grid: heads and chunks; the queries of a head one after the other.
template <class T>
__global__ void decode_chunks(T* parts, Forward<T> a, Sizes n, int chunks) {
    SHARED(T, shared);
    const int64_t bh = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const auto k = shared_rows_of(a.k, bh, n), v = shared_rows_of(a.v, bh, n);
    for (int t = 0; t < n.T; t++) {
        const int first = int(blockIdx.y) * CHUNK, last = first + CHUNK, begin = max(first, first_key(t, n)),
                  end = min(last, t + n.past + 1);
        const LaneRow<T> q = load_row(rows_of(a.q, bh, n)[t], n.HS);
        LaneRow<T> out = {};
        T top = -INFINITY, total = 0;
        for (int s = begin + KEYS * warp; s < end; s += KEYS * WARPS) {
            T score[KEYS], new_top = top;
            UNROLL_FOR (int i = 0; i < KEYS; i++) {
                const T product = dot(q, load_row(k[min(s + i, end - 1)], n.HS));
                score[i] = s + i < end ? capped(T(n.scale) * product, n) : T(-INFINITY);
                new_top = max(new_top, score[i]);
            }
            const T base = new_top == T(-INFINITY) ? T(0) : new_top, shrink = exp(top - base);
            total *= shrink;
            UNROLL_FOR (int i = 0; i < KEYS; i++) {
                const T p = exp(score[i] - base);
                total += p;
                add(out, i ? T(1) : shrink, load_row(v[min(s + i, end - 1)], n.HS), p);
            }
            top = new_top;
        }
        T* mine = part_of(shared, warp, n);
        store_row(mine + 2, out, T(1), n.HS);
        if (lane == 0) mine[0] = top, mine[1] = total;
        __syncthreads();
        T* to = part_of(parts, (bh * n.T + t) * chunks + blockIdx.y, n);
        join(shared, WARPS, T(-INFINITY), n, [&](int d, T sum, T top, T total) {
            to[2 + d] = sum;
            if (d == 0) to[0] = top, to[1] = total;
        });
        __syncthreads();  // before the next query's parts are written there
    }
}

template <class T>
__global__ void join_chunks(Forward<T> a, const T* parts, Sizes n, int chunks) {
    const int64_t bh = blockIdx.x, t = blockIdx.y;
    T* out = rows_of(a.out, bh, n)[t];
    join(part_of(parts, (bh * n.T + t) * chunks, n), chunks, a.sinks ? a.sinks[bh % n.NH] : T(-INFINITY), n,
         [&](int d, T sum, T, T total) { out[d] = sum / total; });
}
}  // namespace minillm::attention_decode
