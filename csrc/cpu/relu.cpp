// ReLU. Formulas: minillm/ops/relu.py; loops and bindings: activation.h.
//
//   act(x) = max(x, 0)          act'(x) = 1 where x > 0, else 0
#include "cpu/activation.h"
#include "cpu/simd/math.h"

namespace minillm::relu {

struct Relu {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return vmax<T>(splat<T>(0), x);  // NaN stays NaN
    }
    template <class T>
    static Vec<T> slope(Vec<T> x) {
        return x <= 0 ? splat<T>(0) : splat<T>(1);
    }
};

const Register registered[] = {{"relu_forward(x)", &Activation<Relu>::forward},
                               {"relu_backward(dout, cache)", &Activation<Relu>::backward}};

}  // namespace minillm::relu
