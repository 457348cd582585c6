// float16, as CUDA's cuda_fp16.h names it.
#pragma once

#include "cuda_runtime.h"
#include "small_floats.h"

using __half = minillm_cuda::Small<minillm_cuda::HalfFormat>;
using __half2 = minillm_cuda::Small2<minillm_cuda::HalfFormat>;
using half = __half;
using half2 = __half2;
MINILLM_SMALL_NAMES(__half, __half2, half)
MINILLM_INLINE __half2 make_half2(__half x, __half y) { return {x, y}; }
MINILLM_INLINE __half2 __lows2half2(__half2 a, __half2 b) { return {a.x, b.x}; }
MINILLM_INLINE __half2 __highs2half2(__half2 a, __half2 b) { return {a.y, b.y}; }
