// Token ids of an op's arguments, for its forward and its cache.
#pragma once

#include "cuda/ops/operands.h"

namespace minillm {

// What the cache keeps: of NumPy's a checked copy, since their owner may write there; an array of the device as it is.
inline Array own_ids(const char* name, const Array& a, const Shape& shape, int64_t size,
                     const int64_t* ignore_index = nullptr) {
    return a.on_device ? a : *to<Array>(ids(name, a, shape, size, ignore_index));
}

}  // namespace minillm
