// GELU, the exact form. Formulas: minillm/ops/gelu_exact.py; loops, grid and ladder: elementwise.cuh.
//
//   gelu(x) = x Phi(x)          slope = Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)          Phi(x) = erfc(-x / sqrt(2)) / 2
//
// erfc keeps the digits of the small tail, which 1 + erf would lose.
#pragma once

#include "cuda/ops/activation.cuh"

namespace minillm::gelu_exact {
struct GeluExact {
    template <class T>
    static DEVICE T cdf(T x) {
        return T(0.5) * erfc(T(-0.70710678118654752440) * x);
    }

    template <class T>
    static DEVICE T value(T x) {
        return x * cdf(x);
    }

    template <class T>
    static DEVICE T slope(T x) {
        return cdf(x) + x * exp(T(-0.5) * x * x) * T(0.39894228040143267794);
    }
};
}  // namespace minillm::gelu_exact
