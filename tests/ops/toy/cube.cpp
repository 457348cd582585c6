// The cube of each number. Formulas: minillm/ops/cube.py.
//
//   out = x^3          dx = dout * 3 x^2
//
// One pass, parallel over blocks of elements.
#include "cpu/simd/elementwise.h"
#include "python/register.h"

namespace minillm {
namespace {

template <class T>
void forward_kernel(T* out, const T* x, int64_t n) {
    elementwise(n, out, [](Vec<T> v) { return v * v * v; }, x);
}

template <class T>
void backward_kernel(T* dx, const T* dout, const T* x, int64_t n) {
    elementwise(n, dx, [](Vec<T> d, Vec<T> v) { return d * (T(3) * v * v); }, dout, x);
}

Tuple cube_forward(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, x.shape);
        auto out = fresh<T>(x.shape);
        without_gil([&] { forward_kernel<T>(out, px, x.size()); });
        return tuple_of({out, tuple_of({x})});
    });
}

Object cube_backward(const Array& dout, const Tuple& cache) {
    Array x = cached(cache, 0);
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        const T *pd = input<T>("dout", dout, x.shape), *px = input<T>("x", x, x.shape);
        auto dx = fresh<T>(x.shape);
        without_gil([&] { backward_kernel<T>(dx, pd, px, x.size()); });
        return dx;
    });
}

const Register registered[] = {{"cube_forward(x)", &cube_forward}, {"cube_backward(dout, cache)", &cube_backward}};

}  // namespace
}  // namespace minillm
