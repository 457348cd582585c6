// The kernels of LayerNorm that residual_layernorm.cpp and decode.cpp use as well; layernorm.cpp has them, for float and double.
#pragma once

#include "python/array.h"

namespace minillm::layernorm {

template <class T>
void forward_row(T* out, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T eps, int64_t C);

// With y, x + y goes to s and is normalised; without, s is not used.
template <class T>
void forward(T* out, T* mean, T* rstd, T* s, const T* x, const T* y, const T* weight, const T* bias, T eps, int64_t N,
             int64_t C);

// (dx, dweight, dbias), with dsum, an array or None, added to dx. cache: (x, weight, mean, rstd).
Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into);

}  // namespace minillm::layernorm
