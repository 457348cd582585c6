// One head of bfloat16 numbers, in float.
#pragma once

#include "cpu/attention/heads.h"
#include "cpu/simd/bfloat16.h"

namespace minillm::attention {

inline void widen(Rows<float> to, Rows<const bf16> from, int64_t T, int64_t HS) {
    constexpr int64_t W = WIDTH<float>;
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < HS; i += W) {
            int64_t n = std::min(W, HS - i);
            store_part(to[t] + i, to_float(load_part(from[t] + i, n)), n);
        }
}

}  // namespace minillm::attention
