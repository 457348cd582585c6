// GELU, the exact form. Formulas: minillm/ops/gelu_exact.py; how a vector of them is computed: simd/math.h.
//
//   out = x * Phi(x)          dx = dout * gelu'(x)
//
// One pass; nothing but x is cached, since gelu' costs less to compute than to read. Parallel over blocks of elements.
#include "cpu/simd/elementwise.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::gelu_exact {

template <class T>
void forward_kernel(T* out, const T* x, int64_t n) {
    elementwise(n, out, [](Vec<T> v) { return vgelu_exact<T>(v); }, x);
}

template <class T>
void backward_kernel(T* dx, const T* dout, const T* x, int64_t n) {
    elementwise(n, dx, [](Vec<T> d, Vec<T> v) { return d * vgelu_exact_slope<T>(v); }, dout, x);
}

Tuple gelu_exact_forward(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, x.shape);
        auto out = fresh<T>(x.shape);
        without_gil([&] { forward_kernel<T>(out, px, x.size()); });
        return tuple_of({out, tuple_of({x})});
    });
}

Object gelu_exact_backward(const Array& dout, const Tuple& cache) {
    Array x = cached(cache, 0);
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        const T *pd = input<T>("dout", dout, x.shape), *px = input<T>("x", x, x.shape);
        auto dx = fresh<T>(x.shape);
        without_gil([&] { backward_kernel<T>(dx, pd, px, x.size()); });
        return dx;
    });
}

const Register registered[] = {{"gelu_exact_forward(x)", &gelu_exact_forward},
                               {"gelu_exact_backward(dout, cache)", &gelu_exact_backward}};

}  // namespace minillm::gelu_exact
