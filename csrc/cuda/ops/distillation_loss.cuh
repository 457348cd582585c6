// Distillation, row by row. Formulas and derivation: minillm/ops/losses/distillation_loss.py.
//
//   Q1 = softmax(z),  Q = softmax(z / T),  P = softmax(u / T)         z the student's logits, u the teacher's
//   loss = (1 - w) (-log Q1[y]) + w T^2 sum over v of P[v] (log P[v] - log Q[v])
//   dz   = dout ((1 - w) (Q1 - 1[v = y]) + w T (Q - P))
//
// A block a row. Forward finds the three softmaxes, and adds up the divergence in a pass of its own over the two rows,
// which then come from L2. Backward is one pass, which makes the probabilities again from five numbers a row.
#pragma once

#include "cuda/ops/softmax.cuh"

namespace minillm::distillation_loss {
using namespace softmax;

template <class T>
struct Distillation {
    const T *logits, *teacher;              // (N, V)
    const int64_t* targets;                 // (N,)
    T temperature, weight;
    int64_t ignore_index, N, V;
};

// The three of one row, and how they are kept for the backward: five rows of numbers, of N each.
template <class T>
struct ThreeSoftmaxes {
    LogSoftmax<T> hard, soft, teacher;
};

template <class T>
DEVICE void keep(T* kept, int64_t n, int64_t N, const ThreeSoftmaxes<T>& of) {
    kept[n] = of.hard.top, kept[N + n] = of.hard.logsum, kept[2 * N + n] = of.soft.logsum;
    kept[3 * N + n] = of.teacher.top, kept[4 * N + n] = of.teacher.logsum;
}
template <class T>
DEVICE ThreeSoftmaxes<T> kept_of(const T* kept, int64_t n, int64_t N, T temperature) {
    const T scale = 1 / temperature;
    return {{kept[n], T(1), kept[N + n]}, {kept[n], scale, kept[2 * N + n]}, {kept[3 * N + n], scale, kept[4 * N + n]}};
}

// P (log P - log Q) of one token; 0 log 0 = 0.
template <class T>
DEVICE T divergence(T z, T u, const ThreeSoftmaxes<T>& of) {
    const T log_p = of.teacher(u), p = exp(log_p);
    return p == 0 ? T(0) : p * (log_p - of.soft(z));
}
template <class T>
DEVICE T loss_of(const Distillation<T>& d, int64_t row, const ThreeSoftmaxes<T>& of, T divergence) {
    const int64_t target = d.targets[row];
    if (target == d.ignore_index) return 0;
    return (1 - d.weight) * -of.hard(d.logits[row * d.V + target]) +
           d.weight * d.temperature * d.temperature * divergence;
}
template <class T>
DEVICE T gradient(const Distillation<T>& d, T z, T u, bool is_target, const ThreeSoftmaxes<T>& of, T dout) {
    const T hard = exp(of.hard(z)) - (is_target ? T(1) : T(0)), soft = exp(of.soft(z)) - exp(of.teacher(u));
    return (hard * (1 - d.weight) + soft * (d.weight * d.temperature)) * dout;
}

template <class T>
__global__ void distillation_forward(T* losses, T* kept, Distillation<T> d) {
    SHARED(T, room);
    const int64_t row = blockIdx.x;
    const T *z = d.logits + row * d.V, *u = d.teacher + row * d.V, scale = 1 / d.temperature;
    const ThreeSoftmaxes<T> of = {log_softmax(z, d.V, T(1), room), log_softmax(z, d.V, scale, room),
                                  log_softmax(u, d.V, scale, room)};
    T mine = 0;
    UNROLL_4_FOR (int64_t v = threadIdx.x; v < d.V; v += blockDim.x) mine += divergence(z[v], u[v], of);
    const T total = block_sum(mine, room);
    if (threadIdx.x) return;
    keep(kept, row, d.N, of);
    losses[row] = loss_of(d, row, of, total);
}
template <class T>
__global__ void distillation_backward(T* dlogits, const T* dout, const T* kept, Distillation<T> d) {
    const int64_t row = blockIdx.x, target = d.targets[row];
    const T *z = d.logits + row * d.V, *u = d.teacher + row * d.V;
    const ThreeSoftmaxes<T> of = kept_of(kept, row, d.N, d.temperature);
    const bool ignored = target == d.ignore_index;
    UNROLL_4_FOR (int64_t v = threadIdx.x; v < d.V; v += blockDim.x)
        dlogits[row * d.V + v] = ignored ? T(0) : gradient(d, z[v], u[v], v == target, of, dout[row]);
}
}  // namespace minillm::distillation_loss
