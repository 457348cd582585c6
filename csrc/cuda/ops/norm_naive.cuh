// LayerNorm and RMSNorm, step 1, naive: one thread a row, and for dweight and dbias one thread a column.
//
// What is wrong with it: neighbouring threads read numbers that lie a row apart, so a warp fetches 32 lines of memory
// for 32 numbers; each row is read up to three times; a column is walked from its first row to its last by a single
// thread, and dout and x are read once more for it. norm.cuh does better.
#pragma once

#include "cuda/ops/norm.cuh"

namespace minillm::cuda {
template <class T, bool CENTRED>
__global__ void naive_norm_forward(NormForward<T> a) {
    const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, C = a.C;
    if (n >= a.N) return;
    const T* s = a.x + n * C;
    if (a.y) {
        for (int64_t i = n * C; i < (n + 1) * C; i++) a.s[i] = a.x[i] + a.y[i];
        s = a.s + n * C;
    }
    T mean = 0, square = 0;
    for (int64_t i = 0; CENTRED && i < C; i++) mean += s[i];
    mean /= C;
    for (int64_t i = 0; i < C; i++) square += (s[i] - mean) * (s[i] - mean);
    const T rstd = 1 / sqrt(square / C + a.eps);
    for (int64_t i = 0; i < C; i++)
        a.out[n * C + i] = (s[i] - mean) * rstd * a.weight[i] + (CENTRED ? a.bias[i] : T(0));
    if (CENTRED) a.mean[n] = mean;
    a.rstd[n] = rstd;
}

template <class T, bool CENTRED>
__global__ void naive_norm_backward(NormBackward<T> a) {
    const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, C = a.C, begin = n * C;
    if (n >= a.N) return;
    const T mean = CENTRED ? a.mean[n] : T(0), rstd = a.rstd[n];
    T g_mean = 0, gx_mean = 0;
    for (int64_t i = 0; i < C; i++) {
        const T g = a.dout[begin + i] * a.weight[i];
        g_mean += CENTRED ? g : T(0);
        gx_mean += g * ((a.x[begin + i] - mean) * rstd);
    }
    g_mean /= C;
    gx_mean /= C;
    for (int64_t i = 0; i < C; i++) {
        const T xhat = (a.x[begin + i] - mean) * rstd;
        const T dx = (a.dout[begin + i] * a.weight[i] - g_mean - xhat * gx_mean) * rstd;
        a.dx[begin + i] = a.dsum ? dx + a.dsum[begin + i] : dx;
    }
}

template <class T, bool CENTRED>
__global__ void naive_norm_parameters(NormBackward<T> a, T* dweight, T* dbias, bool add) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.C) return;
    T to_weight = 0, to_bias = 0;
    for (int64_t n = 0; n < a.N; n++) {
        const T d = a.dout[n * a.C + i], mean = CENTRED ? a.mean[n] : T(0);
        to_weight += d * ((a.x[n * a.C + i] - mean) * a.rstd[n]);
        to_bias += d;
    }
    if (dweight) dweight[i] = add ? dweight[i] + to_weight : to_weight;
    if (dbias) dbias[i] = add ? dbias[i] + to_bias : to_bias;
}

template <class T, bool CENTRED>
void run_naive_norm_forward(const NormForward<T>& a, stream_t stream) {
    const int threads = threads_for(a.N);
    if (a.N) launch(naive_norm_forward<T, CENTRED>, blocks_for(a.N, threads), threads, 0, stream, a);
}

template <class T, bool CENTRED>
void run_naive_norm_backward(const NormBackward<T>& a, T* dweight, T* dbias, bool add, stream_t stream) {
    const int rows = threads_for(a.N), columns = threads_for(a.C);
    if (a.N) launch(naive_norm_backward<T, CENTRED>, blocks_for(a.N, rows), rows, 0, stream, a);
    if (a.C)
        launch(naive_norm_parameters<T, CENTRED>, blocks_for(a.C, columns), columns, 0, stream, a, dweight, dbias, add);
}
}  // namespace minillm::cuda
