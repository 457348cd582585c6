// Softmax and cross-entropy, row by row. Formulas: minillm/ops/losses/cross_entropy.py.
//
//   top = max(z),  logsum = log(sum of exp(z - top)),  loss = logsum + (top - z[y])
//   dz  = dout * (exp(z - top - logsum) - 1[v = y])
//
// Step 1, naive: a thread a row, in two passes. Neighbouring threads read numbers a whole row apart: of each 32 bytes that
// memory sends four are used at a time, and the N threads of a batch do not fill a GPU.
// Step 2: a block a row, in one pass with the online softmax of softmax.cuh: each number is read once, coalesced. Backward a
// block a row, too: it is elementwise but for the row's two numbers.
// What is left to gain is not to write the logits at all: linear_cross_entropy.
#pragma once

#include "cuda/ops/softmax.cuh"

namespace minillm::cross_entropy {
using namespace softmax;

struct Rows { int64_t N, V, ignore_index; };

template <class T>
DEVICE T loss_of(const LogSoftmax<T>& of, const T* z, int64_t target, const Rows& n) {
    return target == n.ignore_index ? T(0) : of.logsum + (of.top - z[target]);
}
template <class T>
DEVICE T gradient(T z, bool is_target, T top, T logsum, T dout) {
    return (exp(z - top - logsum) - (is_target ? T(1) : T(0))) * dout;
}

template <class T>
__global__ void naive_cross_entropy_forward(T* losses, T* top, T* logsum, const T* logits, const int64_t* targets,
                                            Rows n) {
    const int64_t row = thread_number();
    if (row >= n.N) return;
    const T* z = logits + row * n.V;
    LogSoftmax<T> of = {z[0], T(1), T(0)};
    for (int64_t i = 1; i < n.V; i++) of.top = max(of.top, z[i]);
    for (int64_t i = 0; i < n.V; i++) of.logsum += exp(z[i] - of.top);
    of.logsum = log(of.logsum);
    top[row] = of.top;
    logsum[row] = of.logsum;
    losses[row] = loss_of(of, z, targets[row], n);
}
template <class T>
__global__ void naive_cross_entropy_backward(T* dlogits, const T* dout, const T* logits, const int64_t* targets,
                                             const T* top, const T* logsum, Rows n) {
    const int64_t row = thread_number();
    if (row >= n.N) return;
    const bool ignored = targets[row] == n.ignore_index;
    for (int64_t i = row * n.V, v = 0; v < n.V; i++, v++)
        dlogits[i] = ignored ? T(0) : gradient(logits[i], v == targets[row], top[row], logsum[row], dout[row]);
}

template <class T>
__global__ void cross_entropy_forward(T* losses, T* top, T* logsum, const T* logits, const int64_t* targets, Rows n) {
    SHARED(T, room);
    const int64_t row = blockIdx.x;
    const T* z = logits + row * n.V;
    const LogSoftmax<T> of = log_softmax(z, n.V, T(1), room);
    if (threadIdx.x) return;
    top[row] = of.top;
    logsum[row] = of.logsum;
    losses[row] = loss_of(of, z, targets[row], n);
}
template <class T>
__global__ void cross_entropy_backward(T* dlogits, const T* dout, const T* logits, const int64_t* targets, const T* top,
                                       const T* logsum, Rows n) {
    const int64_t row = blockIdx.x, target = targets[row];
    const T *z = logits + row * n.V, d = dout[row], m = top[row], l = logsum[row];
    T* dz = dlogits + row * n.V;
    const bool ignored = target == n.ignore_index;
    UNROLL_4_FOR (int64_t v = threadIdx.x; v < n.V; v += blockDim.x)
        dz[v] = ignored ? T(0) : gradient(z[v], v == target, m, l, d);
}
}  // namespace minillm::cross_entropy
