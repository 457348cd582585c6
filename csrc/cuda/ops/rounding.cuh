// Numbers rounded to bfloat16, to nearest, ties to even: what a matmul on tensor cores takes. One pass, fours of
// neighbours.
#pragma once

#include "cuda/ops/matmul/common.cuh"

namespace minillm::gemm {

constexpr int ROUND_THREADS = 256;

template <class T, class S>
__global__ void round_numbers(S* to, const T* from, int64_t count) {
    const int64_t i = 4 * (int64_t(blockIdx.x) * ROUND_THREADS + threadIdx.x);
    if (i >= count) return;
    T v[4];
    load_numbers(v, from + i, count - i);
    store_numbers(to + i, v, count - i);
}

// `from` as numbers of S: rounded to `room`, or, if they are of S already, where they are.
template <class S, class T>
const S* rounded(S* room, const T* from, int64_t count, gpu::Stream stream) {
    if constexpr (std::is_same_v<S, T>) return from;
    else {
        if (count)
            launch(round_numbers<T, S>, dim3(unsigned((count + 4 * ROUND_THREADS - 1) / (4 * ROUND_THREADS))),
                   ROUND_THREADS, 0, stream_t(stream), room, from, count);
        return room;
    }
}

}  // namespace minillm::gemm
