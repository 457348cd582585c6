// The kernels of RMSNorm that residual_rmsnorm.cpp and decode_llama.cpp use as well; rmsnorm.cpp has the others.
#pragma once

#include <cmath>

#include "cpu/simd/vec.h"
#include "python/array.h"

namespace minillm::rmsnorm {

template <class T>
T row_square_sum(const T* x, int64_t C) {
    Vec<T> total{};
    int64_t i = 0;
    for (; i + WIDTH<T> <= C; i += WIDTH<T>) {
        Vec<T> v = load(x + i);
        total += v * v;
    }
    T tail = 0;
    for (; i < C; i++) tail += x[i] * x[i];
    return sum<T>(total) + tail;
}

// One row; returns rstd.
template <class T>
T forward_row(T* out, const T* x, const T* weight, T eps, int64_t C) {
    T r = 1 / std::sqrt(row_square_sum(x, C) / C + eps);
    for (int64_t i = 0; i < C; i++) out[i] = x[i] * r * weight[i];
    return r;
}

// (s, out, cache) with s = x + y, y an array or None; cache: (s, weight, rstd).
Tuple forward(const Array& x, const Object& y, const Array& weight, double eps);

// (dx, dweight), with dsum, an array or None, added to dx.
Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into);

}  // namespace minillm::rmsnorm
