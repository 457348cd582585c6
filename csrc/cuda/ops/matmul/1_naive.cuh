// Step 1: one thread a number of C, which reads its row of A and its column of B from memory: two loads a
// multiplication. Neighbouring threads have neighbouring columns, so a warp's loads of B are coalesced (if B is not
// transposed), and all its lanes read the same number of A. L1 saves it from the worst; still M * N * K numbers are
// asked for twice.
#pragma once

#include "cuda/ops/matmul/common.cuh"

namespace minillm::gemm {

constexpr int NAIVE_THREADS = 128;

template <class A, class B, class C, class Epilogue>
__global__ void __launch_bounds__(NAIVE_THREADS) naive_matmul(Sizes n, A a, B b, Output<C> out, Epilogue epilogue) {
    LAUNCH_BOUNDS(NAIVE_THREADS);
    const int64_t i = int64_t(blockIdx.x) * NAIVE_THREADS + threadIdx.x, row = i / n.N, column = i % n.N;
    if (row >= n.M) return;
    typename A::Number sum[1] = {0};
    for (int64_t k = 0; k < n.K; k++) sum[0] += *a.at(row, k) * *b.at(k, column);
    finish(sum, out, n, epilogue, row, column);
}

struct Naive {
    template <class T>
    using Stored = T;  // what operands are stored as

    template <class A, class B, class C, class Epilogue = Plain>
    static void matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue = {});
};

template <class A, class B, class C, class Epilogue>
void Naive::matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue) {
    if (n.M == 0 || n.N == 0) return;
    const dim3 grid = grid_of({n.M * n.N, 1, 0}, NAIVE_THREADS, 1);
    launch(naive_matmul<A, B, C, Epilogue>, grid, NAIVE_THREADS, 0, stream_t(stream), n, a, b, out, epilogue);
}

}  // namespace minillm::gemm
