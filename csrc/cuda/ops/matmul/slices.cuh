// Matmuls whose K is long and whose C is small: the gradient of a weight, K = all rows of a batch. Their few tiles
// would leave most multiprocessors without any, so K is cut into slices, which are tiles of their own, and a second
// pass adds up their sums in order: no atomics, and how K is cut depends on the sizes alone, not on the GPU.
#pragma once

#include <algorithm>

#include "cuda/gpu/arena.h"
#include "cuda/ops/matmul/common.cuh"

namespace minillm::gemm {

constexpr int64_t SLICE_UNIT = 64, SHORTEST_SLICE = 1024, MOST_SLICES = 8, MULTIPROCESSORS = 132;

// The sizes with slices, if there shall be any, for a matmul of these types and so many tiles.
template <class A, class C, class Epilogue>
Sizes sliced(Sizes n, int64_t tiles) {
    constexpr bool of_a_weight = A::transposed && std::is_same_v<C, float> && std::is_same_v<Epilogue, Plain>;
    const int64_t slices = std::min({MULTIPROCESSORS / tiles, n.K / SHORTEST_SLICE, MOST_SLICES});
    if (of_a_weight && slices > 1) n.slice = tiles_of(tiles_of(n.K, slices), SLICE_UNIT) * SLICE_UNIT;
    return n;
}

constexpr int ADD_THREADS = 256;
template <class C>
__global__ void __launch_bounds__(ADD_THREADS) add_slices(Output<C> out, const float* parts, int64_t slices, Sizes n) {
    LAUNCH_BOUNDS(ADD_THREADS);
    const int64_t i = 4 * (int64_t(blockIdx.x) * ADD_THREADS + threadIdx.x), across = (n.N + 3) / 4 * 4;
    const int64_t row = i / across, column = i % across;
    float v[4] = {}, part[4];
    for (int64_t s = 0; s < slices && row < n.M; s++) {
        load_numbers(part, parts + (s * n.M + row) * n.N + column, n.N - column);
        UNROLL_FOR (int j = 0; j < 4; j++) v[j] += part[j];
    }
    finish(v, out, n, Plain(), row, column);
}

// start(output): launches the matmul of all slices; slice s writes from s * M rows on.
template <class C, class F>
void in_slices(const Sizes& n, Output<C> out, gpu::Stream stream, F start) {
    const int64_t slices = tiles_of(n.K, n.slice);
    gpu::Block<float> parts(slices * n.M * n.N);
    start(Output<float>{parts.data, n.N});
    const int64_t threads = n.M * ((n.N + 3) / 4);
    launch(add_slices<C>, dim3(unsigned((threads + ADD_THREADS - 1) / ADD_THREADS)), ADD_THREADS, 0, stream_t(stream),
           out, parts.data, slices, n);
}

}  // namespace minillm::gemm
