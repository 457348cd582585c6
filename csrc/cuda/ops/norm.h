// What the bindings of the four norms call; norm.cu has it.
#pragma once

#include "python/array.h"

namespace minillm::cuda {
// (s, out, cache) with s = x + y, or x where y is null; cache: (s, weight, mean, rstd), without a mean if not CENTRED
// (RMSNorm). NAIVE: step 1 of the ladder.
template <bool CENTRED, bool NAIVE>
Tuple norm_forward(const Array& x, const Array* y, const Array& weight, const Array* bias, double eps);

// (dx, dweight, dbias), of RMSNorm without dbias, with dsum, an array or None, added to dx.
template <bool CENTRED, bool NAIVE>
Tuple norm_backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into);
}  // namespace minillm::cuda
