// bfloat16, as CUDA's cuda_bf16.h names it.
#pragma once

#include "cuda_runtime.h"
#include "small_floats.h"

using __nv_bfloat16 = minillm_cuda::Small<minillm_cuda::Bfloat16Format>;
using __nv_bfloat162 = minillm_cuda::Small2<minillm_cuda::Bfloat16Format>;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;
MINILLM_SMALL_NAMES(__nv_bfloat16, __nv_bfloat162, bfloat16)
MINILLM_INLINE __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
