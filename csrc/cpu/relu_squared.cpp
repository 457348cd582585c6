// The square of ReLU. Formulas: minillm/ops/relu_squared.py.
//
//   out = max(x, 0)^2          dx = dout * 2 * max(x, 0)
//
// One pass, parallel over blocks of elements.
#include "cpu/simd/elementwise.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::relu_squared {

template <class T>
Vec<T> relu(Vec<T> x) {
    return vmax<T>(splat<T>(0), x);  // NaN stays NaN
}

template <class T>
void forward_kernel(T* out, const T* x, int64_t n) {
    elementwise(n, out, [](Vec<T> v) { return relu<T>(v) * relu<T>(v); }, x);
}

template <class T>
void backward_kernel(T* dx, const T* dout, const T* x, int64_t n) {
    elementwise(n, dx, [](Vec<T> d, Vec<T> v) { return d * (2 * relu<T>(v)); }, dout, x);
}

Tuple relu_squared_forward(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, x.shape);
        auto out = fresh<T>(x.shape);
        without_gil([&] { forward_kernel<T>(out, px, x.size()); });
        return tuple_of({out, tuple_of({x})});
    });
}

Object relu_squared_backward(const Array& dout, const Tuple& cache) {
    Array x = cached(cache, 0);
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        const T *pd = input<T>("dout", dout, x.shape), *px = input<T>("x", x, x.shape);
        auto dx = fresh<T>(x.shape);
        without_gil([&] { backward_kernel<T>(dx, pd, px, x.size()); });
        return dx;
    });
}

const Register registered[] = {{"relu_squared_forward(x)", &relu_squared_forward},
                               {"relu_squared_backward(dout, cache)", &relu_squared_backward}};

}  // namespace minillm::relu_squared
