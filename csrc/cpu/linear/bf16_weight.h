// Weights of the bf16 variants: float32, or the bfloat16 copy that the optimizer leaves (adamw.cpp), half the bytes to read.
#pragma once

#include "cpu/gemm/pairs.h"
#include "python/array.h"

namespace minillm {

// The operand of a GEMM that an array (rows, columns) is: of float, or of bf16 by its bits.
inline Operand operand_of(const char* name, const Array& a, const Shape& shape) {
    if (a.dtype == "uint16") return Matrix<bf16>{(const bf16*)input<uint16_t>(name, a, shape), a.shape[1]};
    return Matrix<float>{input<float>(name, a, shape), a.shape[1]};
}

}  // namespace minillm
