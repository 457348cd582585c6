// The square of ReLU. Formulas: minillm/ops/relu_squared.py; loops, grid and ladder: elementwise.cuh.
//
//   act(x) = max(x, 0)^2          slope = 2 max(x, 0)
#pragma once

#include "cuda/ops/activation.cuh"

namespace minillm::relu_squared {
struct ReluSquared {
    template <class T>
    static DEVICE T relu(T x) {
        return x <= 0 ? T(0) : x;
    }                 // NaN stays NaN, which CUDA's max drops
    template <class T>
    static DEVICE T value(T x) {
        return relu(x) * relu(x);
    }
    template <class T>
    static DEVICE T slope(T x) {
        return 2 * relu(x);
    }
};
}  // namespace minillm::relu_squared
