// RMSNorm: LayerNorm without the mean and the bias. Formulas: minillm/ops/rmsnorm.py.
//
//   out = x * rstd * weight          rstd = 1 / sqrt(sum(x^2) / C + eps)
//   dx  = rstd * (g - xhat * mean(g * xhat)),   g = dout * weight,   xhat = x * rstd
//
// Kernels, grid and ladder: norm_naive.cuh and norm.cuh, not CENTRED: the mean is 0, which saves a sum over the row.
#pragma once

#include "cuda/ops/norm_naive.cuh"
