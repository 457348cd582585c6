// The softmax of a row of logits by a block: its largest number, and the sum of exp(z - top).
//
// Both in one pass: a thread keeps the largest it has met and the sum relative to that, which shrinks when a larger one
// comes (Milakov and Gimelshein 2018, arXiv 1805.02867). Thread t takes the numbers t, t + threads, ... whatever the
// address of the row, so a row has the same bits wherever it lies in the batch: coalesced, four loads under way.
#pragma once

#include "cuda/ops/threads.cuh"

namespace minillm::softmax {
using namespace cuda;

// A block for each row: fewer threads for short rows, by V alone, since the order of the sums depends on it.
inline int threads_for_row(int64_t V) { return threads_for(V / 2 + 1); }
constexpr int MOST_WARPS = THREADS / 32;  // numbers of shared memory to join warps in

// What the threads of a block have, joined in one order; every thread gets it.
template <class T, class Join>
DEVICE T block_join(T x, T* room, Join join) {
    UNROLL_FOR (int step = 16; step; step /= 2) x = join(x, __shfl_xor_sync(~0u, x, step));
    const int warps = blockDim.x / 32;
    if (warps == 1) return x;
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    for (int warp = 1; warp < warps; warp++) x = join(x, room[warp]);
    __syncthreads();  // before the next ones are written there
    return x;
}
template <class T>
DEVICE T block_sum(T x, T* room) {
    return block_join(x, room, [](T a, T b) { return a + b; });
}
template <class T>
DEVICE T block_max(T x, T* room) {
    return block_join(x, room, [](T a, T b) { return max(a, b); });
}

// What a sum relative to `old` is multiplied with to be one relative to `top`; -inf to -inf is no change, not NaN.
template <class T>
DEVICE T shrink(T old, T top, T scale) {
    return old == top ? T(1) : exp((old - top) * scale);
}

template <class T>
struct MaxSum {
    T top = -INFINITY, sum = 0;
    DEVICE void add(const T (&z)[4], T scale) {
        const T old = top;
        top = max(max(old, max(z[0], z[1])), max(z[2], z[3]));
        sum *= shrink(old, top, scale);
        sum += (shrink(z[0], top, scale) + shrink(z[1], top, scale)) +
               (shrink(z[2], top, scale) + shrink(z[3], top, scale));
    }
};

// log softmax(z * scale) as a function of z.
template <class T>
struct LogSoftmax {
    T top, scale, logsum;  // the largest z; log of the sum of exp((z - top) * scale)
    DEVICE T operator()(T z) const { return (z - top) * scale - logsum; }
};

// Every thread of the block gets that of the row. room: MOST_WARPS numbers of shared memory.
template <class T>
DEVICE LogSoftmax<T> log_softmax(const T* row, int64_t V, T scale, T* room) {
    const int64_t threads = blockDim.x;
    MaxSum<T> mine;
    for (int64_t i = threadIdx.x; i < V; i += 4 * threads) {
        T z[4];
        UNROLL_FOR (int k = 0; k < 4; k++) z[k] = i + k * threads < V ? row[i + k * threads] : T(-INFINITY);
        mine.add(z, scale);
    }
    const T top = block_max(mine.top, room);
    return {top, scale, log(block_sum(mine.sum * shrink(mine.top, top, scale), room))};
}

// ---- op softmax itself (minillm/ops/softmax.py): out = exp(log softmax(x)), dx = p * (dout - sum(dout * p)) ----

// Step 1, naive: a thread a row, three times over it; neighbouring threads read numbers a row apart.
template <class T>
__global__ void naive_softmax_forward(T* out, const T* x, int64_t N, int64_t V) {
    const int64_t n = thread_number(), begin = n * V;
    if (n >= N) return;
    T top = x[begin], sum = 0;
    for (int64_t i = begin; i < begin + V; i++) top = max(top, x[i]);
    for (int64_t i = begin; i < begin + V; i++) sum += exp(x[i] - top);
    for (int64_t i = begin; i < begin + V; i++) out[i] = exp(x[i] - top) / sum;
}
template <class T>
__global__ void naive_softmax_backward(T* dx, const T* dout, const T* p, int64_t N, int64_t V) {
    const int64_t n = thread_number(), begin = n * V;
    if (n >= N) return;
    T sum = 0;
    for (int64_t i = begin; i < begin + V; i++) sum += dout[i] * p[i];
    for (int64_t i = begin; i < begin + V; i++) dx[i] = p[i] * (dout[i] - sum);
}

// Best: a block a row, coalesced, and the maximum and the sum in one pass.
template <class T>
__global__ void softmax_forward(T* out, const T* x, int64_t V) {
    SHARED(T, room);
    const int64_t begin = blockIdx.x * V;
    const LogSoftmax<T> of = log_softmax(x + begin, V, T(1), room);
    UNROLL_4_FOR (int64_t i = threadIdx.x; i < V; i += blockDim.x) out[begin + i] = exp(of(x[begin + i]));
}
template <class T>
__global__ void softmax_backward(T* dx, const T* dout, const T* p, int64_t V) {
    SHARED(T, room);
    const int64_t begin = blockIdx.x * V;
    T sum = 0;
    UNROLL_4_FOR (int64_t i = threadIdx.x; i < V; i += blockDim.x) sum += dout[begin + i] * p[begin + i];
    sum = block_sum(sum, room);
    UNROLL_4_FOR (int64_t i = threadIdx.x; i < V; i += blockDim.x)
        dx[begin + i] = p[begin + i] * (dout[begin + i] - sum);
}
}  // namespace minillm::softmax
