// The residual connection. Formulas: minillm/ops/residual.py; loops, grid and ladder: elementwise.cuh.
//
//   out = x + y          dx = dy = dout: one pass that reads dout once and writes it twice
//
// Where a norm follows, residual_layernorm or residual_rmsnorm does both in one pass.
#pragma once

#include "cuda/ops/elementwise.cuh"

namespace minillm::residual {
struct Sum {
    template <class T>
    DEVICE T operator()(T x, T y) const {
        return x + y;
    }
};
struct Twice {
    template <class T>
    DEVICE void operator()(T& dx, T& dy, T d) const {
        dx = d;
        dy = d;
    }
};
}  // namespace minillm::residual
