// SwiGLU. Formulas: minillm/ops/swiglu.py; loops and bindings: gated.h.
//
//   silu(x) = x * s, s = 1 / (1 + exp(-x))          silu'(x) = s + x * s * (1 - s)
#include "cpu/gated.h"
#include "cpu/simd/math.h"

namespace minillm::swiglu {

struct Silu {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return vsilu<T>(x);
    }
    template <class T>
    static Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
        return vsilu_and_slope<T>(x, slope);
    }
};

const Register registered[] = {{"swiglu_forward(gate, up)", &Gated<Silu>::forward},
                               {"swiglu_backward(dout, cache)", &Gated<Silu>::backward}};

}  // namespace minillm::swiglu
