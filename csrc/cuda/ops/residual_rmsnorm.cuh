// The residual addition and the RMSNorm after it in one pass. Formulas: minillm/ops/residual_rmsnorm.py.
//
//   s  = x + y                out = rmsnorm(s)
//   ds = dsum + dx            dx: rmsnorm's, from dout
//
// Kernels, grid and ladder: norm_naive.cuh and norm.cuh, whose `y` and `dsum` this op gives.
#pragma once

#include "cuda/ops/norm_naive.cuh"
