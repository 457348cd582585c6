// The kernels of LayerNorm that residual_layernorm.cpp and decode.cpp use as well; layernorm.cpp has them.
#pragma once

#include "python/array.h"

namespace minillm::layernorm {

template <class T>
void forward_row(T* out, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T eps, int64_t C);

// (s, out, cache) with s = x + y, y an array or None; cache: (s, weight, mean, rstd).
Tuple forward(const Array& x, const Object& y, const Array& weight, const Array& bias, double eps);

// (dx, dweight, dbias), with dsum, an array or None, added to dx.
Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into);

}  // namespace minillm::layernorm
