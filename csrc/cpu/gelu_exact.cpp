// GELU, the exact form. Formulas: minillm/ops/gelu_exact.py; a vector of them: simd/math.h; loops and bindings:
// activation.h.
#include "cpu/activation.h"
#include "cpu/simd/math.h"

namespace minillm::gelu_exact {

struct GeluExact {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return vgelu_exact<T>(x);
    }
    template <class T>
    static Vec<T> slope(Vec<T> x) {
        return vgelu_exact_slope<T>(x);
    }
};

const Register registered[] = {{"gelu_exact_forward(x)", &Activation<GeluExact>::forward},
                               {"gelu_exact_backward(dout, cache)", &Activation<GeluExact>::backward}};

}  // namespace minillm::gelu_exact
