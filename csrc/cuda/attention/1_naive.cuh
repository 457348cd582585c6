// Variant 1, naive: attention with an online softmax, one warp a row, no shared memory.
//
// The warp of query row t walks over the columns s that it may see. Its 32 lanes split the HS numbers of a head (lane
// i holds numbers i, i + 32, ...), so q . k[s] is one product a lane and a sum over lanes. The softmax is taken
// online: with the largest score so far, `top`, out = sum exp(S[s] - top) v[s] and total = sum exp(S[s] - top); when a
// larger score comes, both shrink by exp(old top - new top) (Milakov and Gimelshein 2018, arXiv 1805.02867). So memory
// is O(T).
//
// What is wrong with it: every row reads all of K and V again from device memory, T * T * HS numbers a head instead of
// T * HS, and five shuffles serve a single score. Variant 2 reads a tile once for 64 rows.
#pragma once

#include "cuda/attention/common.cuh"

namespace minillm::attention {
constexpr int NAIVE_WARPS = 8;              // rows a block
constexpr int PARTS = 8;                    // numbers a lane: HS up to 256

template <class T>
struct LaneRow {                            // one row of HS numbers, spread over a warp
    T x[PARTS];
};

template <class T>
DEVICE LaneRow<T> load_row(const T* row, int HS) {
    LaneRow<T> r;
    UNROLL_FOR (int i = 0; i < PARTS; i++) {
        const int d = threadIdx.x % 32 + 32 * i;
        r.x[i] = d < HS ? row[d] : T(0);
    }
    return r;
}
template <class T>
DEVICE void store_row(T* row, const LaneRow<T>& r, T factor, int HS) {
    UNROLL_FOR (int i = 0; i < PARTS; i++) {
        const int d = threadIdx.x % 32 + 32 * i;
        if (d < HS) row[d] = r.x[i] * factor;
    }
}
template <class T>
DEVICE T dot(const LaneRow<T>& a, const LaneRow<T>& b) {
    T sum = 0;
    UNROLL_FOR (int i = 0; i < PARTS; i++) sum += a.x[i] * b.x[i];
    return lanes_sum<32>(sum);
}
// a = a * shrink + b * factor
template <class T>
DEVICE void add(LaneRow<T>& a, T shrink, const LaneRow<T>& b, T factor) {
    UNROLL_FOR (int i = 0; i < PARTS; i++) a.x[i] = a.x[i] * shrink + b.x[i] * factor;
}

template <class T>
__global__ void naive_forward(Forward<T> a, Sizes n) {
    const int64_t bh = blockIdx.x, t = int64_t(blockIdx.y) * NAIVE_WARPS + threadIdx.x / 32;
    if (t >= n.T) return;                   // the whole warp
    const auto k = shared_rows_of(a.k, bh, n), v = shared_rows_of(a.v, bh, n);
    const LaneRow<T> q = load_row(rows_of(a.q, bh, n)[t], n.HS);
    LaneRow<T> out = {};
    T top = a.sinks ? a.sinks[bh % n.NH] : T(-INFINITY), total = a.sinks ? 1 : 0;
    const int64_t end = n.past + (n.causal ? t + 1 : n.T);
    for (int64_t s = first_key(int(t), n); s < end; s++) {
        const T score = capped(T(n.scale) * dot(q, load_row(k[s], n.HS)), n);
        const T new_top = max(top, score), base = new_top == T(-INFINITY) ? T(0) : new_top;
        const T shrink = exp(top - base), p = exp(score - base);
        total = total * shrink + p;
        add(out, shrink, load_row(v[s], n.HS), p);
        top = new_top;
    }
    store_row(rows_of(a.out, bh, n)[t], out, 1 / total, n.HS);
    if (a.lse && threadIdx.x % 32 == 0) a.lse[bh * n.T + t] = top + log(total);
}

// dq[t] = scale * sum_s dS[t,s] k[s],  dS = P * (dP - delta),  P = exp(S - lse),  dP[t,s] = dout[t] . v[s]
template <class T>
__global__ void naive_backward_queries(Backward<T> a, Sizes n) {
    const int64_t bh = blockIdx.x, t = int64_t(blockIdx.y) * NAIVE_WARPS + threadIdx.x / 32;
    if (t >= n.T) return;
    const auto k = shared_rows_of(a.k, bh, n), v = shared_rows_of(a.v, bh, n);
    const LaneRow<T> q = load_row(rows_of(a.q, bh, n)[t], n.HS), dout = load_row(rows_of(a.dout, bh, n)[t], n.HS);
    const T lse = a.lse[bh * n.T + t], delta = a.delta[bh * n.T + t];
    LaneRow<T> dq = {};
    const int64_t end = n.causal ? t + 1 : n.T;
    for (int64_t s = first_key(int(t), n); s < end; s++) {
        const LaneRow<T> ks = load_row(k[s], n.HS);
        const T score = capped(T(n.scale) * dot(q, ks), n), p = exp(score - lse);
        const T dp = dot(dout, load_row(v[s], n.HS));
        add(dq, T(1), ks, p * (dp - delta) * slope_at(score, n));
    }
    store_row(rows_of(a.dq, bh, n)[t], dq, T(n.scale), n.HS);
}

// dk[s] = scale * sum_t dS[t,s] q[t],  dv[s] = sum_t P[t,s] dout[t]: the warp of key row s walks over the queries,
// of one head that shares it after the other, so that no two warps add to the same place and the order of the sum is fixed.
template <class T>
__global__ void naive_backward_keys(Backward<T> a, Sizes n) {
    const int64_t first = int64_t(blockIdx.x) * n.group, s = int64_t(blockIdx.y) * NAIVE_WARPS + threadIdx.x / 32;
    if (s >= n.T) return;
    const LaneRow<T> k = load_row(shared_rows_of(a.k, first, n)[s], n.HS),
                     v = load_row(shared_rows_of(a.v, first, n)[s], n.HS);
    LaneRow<T> dk = {}, dv = {};
    for (int64_t bh = first; bh < first + n.group; bh++) {
        const auto q = rows_of(a.q, bh, n), dout = rows_of(a.dout, bh, n);
        for (int64_t t = n.causal ? s : 0; t < queries_end(s, n); t++) {
            const LaneRow<T> qt = load_row(q[t], n.HS), dt = load_row(dout[t], n.HS);
            const T score = capped(T(n.scale) * dot(qt, k), n), p = exp(score - a.lse[bh * n.T + t]), dp = dot(dt, v);
            add(dk, T(1), qt, p * (dp - a.delta[bh * n.T + t]) * slope_at(score, n));
            add(dv, T(1), dt, p);
        }
    }
    store_row(shared_rows_of(a.dk, first, n)[s], dk, T(n.scale), n.HS);
    store_row(shared_rows_of(a.dv, first, n)[s], dv, T(1), n.HS);
}
}  // namespace minillm::attention
