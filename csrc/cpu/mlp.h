// What the two variants of the MLP share.
#pragma once

#include "cpu/gemm/gemm.h"

namespace minillm {

constexpr int64_t MLP_ROWS = ROWS_OF_A;

// All but x may be null.
template <class T>
struct MlpGradients {
    T *x, *w1, *b1, *w2, *b2;
};

}  // namespace minillm
