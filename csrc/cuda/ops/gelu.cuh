// GELU, the tanh form. Formulas: minillm/ops/gelu.py; loops, grid and ladder: elementwise.cuh.
//
// Since (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), one exponential and one division do; and nothing cancels for x < 0:
//
//   gelu(x) = x / (1 + exp(-2u))          2u = 2 k (x + a x^3)
//   slope   = s + x s (1 - s) 2k (1 + 3 a x^2)          s = 1 / (1 + exp(-2u))
//   s (1 - s) = e / (1 + e)^2                           e = exp(-|2u|)
#pragma once

#include "cuda/ops/activation.cuh"

namespace minillm::gelu {
constexpr double K2 = 1.59576912160573071, A = 0.044715;  // 2 sqrt(2 / pi)

struct Gelu {
    template <class T>
    static DEVICE T value(T x) {
        return x / (1 + exp(-x * (T(K2 * A) * x * x + T(K2))));
    }

    // Beyond +-30 the slope is 0 or 1, and the square of a large x would give 0 times infinity. NaN stays NaN.
    template <class T>
    static DEVICE T slope(T x) {
        x = x < -30 ? T(-30) : x > 30 ? T(30) : x;
        const T u2 = x * (T(K2 * A) * x * x + T(K2)), e = exp(u2 < 0 ? u2 : -u2), r = 1 / (1 + e);
        return (x < 0 ? e * r : r) + x * e * r * r * (T(3 * K2 * A) * x * x + T(K2));
    }
};
}  // namespace minillm::gelu
