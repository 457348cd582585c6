// ReLU. Formulas: minillm/ops/relu.py; loops, grid and ladder: elementwise.cuh.
//
//   act(x) = max(x, 0)          slope = 1 where x > 0, else 0
#pragma once

#include "cuda/ops/activation.cuh"

namespace minillm::relu {
struct Relu {
    template <class T>
    static DEVICE T value(T x) {
        return x <= 0 ? T(0) : x;
    }                 // NaN stays NaN, which CUDA's max drops
    template <class T>
    static DEVICE T slope(T x) {
        return x <= 0 ? T(0) : T(1);
    }
};
}  // namespace minillm::relu
