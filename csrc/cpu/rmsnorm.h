// The kernels of RMSNorm that residual_rmsnorm.cpp uses as well; rmsnorm.cpp has them.
#pragma once

#include "python/array.h"

namespace minillm::rmsnorm {

// (s, out, cache) with s = x + y, y an array or None; cache: (s, weight, rstd).
Tuple forward(const Array& x, const Object& y, const Array& weight, double eps);

// (dx, dweight), with dsum, an array or None, added to dx.
Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into);

}  // namespace minillm::rmsnorm
