// GeGLU. Formulas: minillm/ops/geglu.py; loops and bindings: gated.h; GELU of a vector: simd/math.h.
#include "cpu/gated.h"
#include "cpu/simd/math.h"

namespace minillm::geglu {

struct Gelu {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return vgelu<T>(x);
    }
    template <class T>
    static Vec<T> value_and_slope(Vec<T> x, Vec<T>& slope) {
        return vgelu_and_slope<T>(x, slope);
    }
};

const Register registered[] = {{"geglu_forward(gate, up)", &Gated<Gelu>::forward},
                               {"geglu_backward(dout, cache)", &Gated<Gelu>::backward}};

}  // namespace minillm::geglu
