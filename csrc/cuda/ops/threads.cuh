// A thread for each of many things: its number, and the launch of so many.
#pragma once

#include "cuda/ops/elementwise.cuh"

namespace minillm::cuda {
DEVICE int64_t thread_number() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// kernel(args...) by at least so many threads, if any.
template <class... P, class... A>
void over(int64_t count, void (*kernel)(P...), stream_t stream, A... args) {
    if (!count) return;
    const int threads = threads_for(count);
    launch(kernel, blocks_for(count, threads), threads, 0, stream, args...);
}
}  // namespace minillm::cuda
