// The residual addition and the LayerNorm after it in one pass. Formulas: minillm/ops/residual_layernorm.py.
//
//   s  = x + y                out = layernorm(s)
//   ds = dsum + dx            dx: layernorm's, from dout
//
// Kernels, grid and ladder: norm_naive.cuh and norm.cuh, whose `y` and `dsum` this op gives.
#pragma once

#include "cuda/ops/norm_naive.cuh"
