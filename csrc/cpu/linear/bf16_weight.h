// Weights of the bf16 variants: float32, or the bfloat16 copy that the optimizer leaves (adamw.cpp), half the bytes to read.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/simd/bfloat16.h"
#include "python/array.h"

namespace minillm {

// The Matrix of a weight (rows, columns) that must arrive as another one does: in float, or in bf16 by its bits.
template <class S>
Matrix<S> weight_like(Matrix<S>, const char* name, const Array& weight, int64_t rows, int64_t columns) {
    typedef std::conditional_t<std::is_same_v<S, bf16>, uint16_t, S> Bits;
    return {(const S*)input<Bits>(name, weight, {rows, columns}), columns};
}

// Calls f with the Matrix of a weight, as it arrives.
template <class F>
auto by_weight(const char* name, const Array& weight, int64_t rows, int64_t columns, F f) {
    if (weight.dtype == "uint16") return f(weight_like(Matrix<bf16>{}, name, weight, rows, columns));
    return f(weight_like(Matrix<float>{}, name, weight, rows, columns));
}

}  // namespace minillm
