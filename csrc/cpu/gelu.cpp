// GELU, the tanh form. Formulas: minillm/ops/gelu.py; a vector of them: simd/math.h; loops and bindings: activation.h.
#include "cpu/activation.h"
#include "cpu/simd/math.h"

namespace minillm::gelu {

struct Gelu {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return vgelu<T>(x);
    }
    template <class T>
    static Vec<T> slope(Vec<T> x) {
        return vgelu_slope<T>(x);
    }
};

const Register registered[] = {{"gelu_forward(x)", &Activation<Gelu>::forward},
                               {"gelu_backward(dout, cache)", &Activation<Gelu>::backward}};

}  // namespace minillm::gelu
