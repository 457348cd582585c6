// LayerNorm. Formulas: minillm/ops/layernorm.py.
//
//   out = xhat * weight + bias,   xhat = (x - mean) * rstd
//   dx  = rstd * (g - mean(g) - xhat * mean(g * xhat)),   g = dout * weight
//
// Kernels, grid and ladder: norm_naive.cuh and norm.cuh.
#pragma once

#include "cuda/ops/norm_naive.cuh"
