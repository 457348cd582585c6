// Asynchronous copies from device to shared memory, by CUDA's pipeline primitives.
#pragma once

#include "cuda_runtime.h"

extern "C" void minillm_cuda_copy_async(void* to, const void* from, size_t bytes, size_t zeros);
extern "C" void minillm_cuda_commit_copies();
extern "C" void minillm_cuda_wait_for_copies(unsigned groups_left);

MINILLM_INLINE void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0) {
    minillm_cuda_copy_async(to, from, bytes, zeros);
}
MINILLM_INLINE void __pipeline_commit() { minillm_cuda_commit_copies(); }
MINILLM_INLINE void __pipeline_wait_prior(unsigned groups_left) { minillm_cuda_wait_for_copies(groups_left); }
