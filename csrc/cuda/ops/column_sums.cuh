// sums[j] = sum over n of x[n, j], x (N, J): the gradient of a bias.
//
// A thread has a column, so that a warp reads 32 neighbours of each row. Few columns would be few threads: rows are cut
// into slabs, always of SLAB rows, and a second pass adds up the slabs in order. No atomics: the order of each sum is
// one.
#pragma once

#include "cuda/gpu/device.h"
#include "cuda/gpu/gpu.h"

namespace minillm::gemm {

constexpr int SLAB = 64, COLUMN_THREADS = 128;

template <class T, class S>
__global__ void column_sums_of_slabs(T* parts, const S* x, int64_t N, int64_t J) {
    const int64_t across = (J + COLUMN_THREADS - 1) / COLUMN_THREADS, slab = blockIdx.x / across;
    const int64_t j = blockIdx.x % across * COLUMN_THREADS + threadIdx.x, first = slab * SLAB;
    if (j >= J) return;
    const int rows = N - first < SLAB ? int(N - first) : SLAB;
    T sum = 0;
    UNROLL_4_FOR (int n = 0; n < rows; n++) sum += T(x[(first + n) * J + j]);
    parts[slab * J + j] = sum;
}

template <class T>
__global__ void add_slabs(T* sums, const T* parts, int64_t slabs, int64_t J, bool add) {
    const int64_t j = int64_t(blockIdx.x) * COLUMN_THREADS + threadIdx.x;
    if (j >= J) return;
    T sum = 0;
    UNROLL_4_FOR (int64_t s = 0; s < slabs; s++) sum += parts[s * J + j];
    sums[j] = add ? sums[j] + sum : sum;
}

// Numbers of room that it needs for N rows.
inline int64_t slabs_of(int64_t N) { return (N + SLAB - 1) / SLAB; }

// sums may be null: nobody wants them. add: they are added to.
template <class T, class S>
void column_sums(T* sums, const S* x, int64_t N, int64_t J, bool add, T* room, gpu::Stream stream) {
    if (!sums || J == 0) return;
    const int64_t across = (J + COLUMN_THREADS - 1) / COLUMN_THREADS, slabs = slabs_of(N);
    if (slabs)
        launch(column_sums_of_slabs<T, S>, dim3(unsigned(across * slabs)), COLUMN_THREADS, 0, stream_t(stream), room, x,
               N, J);
    launch(add_slabs<T>, dim3(unsigned(across)), COLUMN_THREADS, 0, stream_t(stream), sums, room, slabs, J, add);
}

}  // namespace minillm::gemm
