// The square of ReLU. Formulas: minillm/ops/relu_squared.py; loops and bindings: activation.h.
//
//   act(x) = max(x, 0)^2          act'(x) = 2 * max(x, 0)
#include "cpu/activation.h"
#include "cpu/simd/math.h"

namespace minillm::relu_squared {

struct ReluSquared {
    template <class T>
    static Vec<T> value(Vec<T> x) {
        return relu<T>(x) * relu<T>(x);
    }
    template <class T>
    static Vec<T> slope(Vec<T> x) {
        return 2 * relu<T>(x);
    }
    template <class T>
    static Vec<T> relu(Vec<T> x) {
        return vmax<T>(splat<T>(0), x);  // NaN stays NaN
    }
};

const Register registered[] = {{"relu_squared_forward(x)", &Activation<ReluSquared>::forward},
                               {"relu_squared_backward(dout, cache)", &Activation<ReluSquared>::backward}};

}  // namespace minillm::relu_squared
