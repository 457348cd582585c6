// SwiGLU. Formulas: minillm/ops/swiglu.py; loops, grid and ladder: elementwise.cuh.
//
//   silu(x) = x s,   slope = s + x s (1 - s),     s = 1 / (1 + exp(-x)),     s (1 - s) = e / (1 + e)^2,   e = exp(-|x|)
#pragma once

#include "cuda/ops/activation.cuh"

namespace minillm::swiglu {
struct Silu {
    template <class T>
    static DEVICE T value(T x) {
        return x / (1 + exp(-x));
    }

    template <class T>
    static DEVICE T slope(T x) {
        const T e = exp(x < 0 ? x : -x), r = 1 / (1 + e);
        return (x < 0 ? e * r : r) + x * e * r * r;
    }
};
}  // namespace minillm::swiglu
