// The epilogue of a linear layer that is for generating only: a bias, where there is one, and an activation, where it is asked for.
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm {

template <char ACTIVATION>  // 't': GELU by tanh, 'e': exact, ' ': none
struct BiasAndActivation {
    const float* bias;
    Vec<float> operator()(Vec<float> v, int64_t, int64_t column, int64_t n) const {
        if (bias) v = v + load_part(bias + column, n);
        if constexpr (ACTIVATION == 't') return vgelu<float>(v);
        else if constexpr (ACTIVATION == 'e') return vgelu_exact<float>(v);
        else return v;
    }
};

// f(epilogue), without the GIL, for an activation by its name.
template <class F>
void with_epilogue(const string& activation, const float* bias, F f) {
    if (activation != "" && activation != "gelu" && activation != "gelu_exact")
        fail("activation must be '', gelu or gelu_exact: got ", activation);
    without_gil([&] {
        if (activation == "gelu") f(BiasAndActivation<'t'>{bias});
        else if (activation == "gelu_exact") f(BiasAndActivation<'e'>{bias});
        else f(BiasAndActivation<' '>{bias});
    });
}

}  // namespace minillm
