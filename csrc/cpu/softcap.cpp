// Logit soft-cap. Formulas: minillm/ops/softcap.py; tanh of a vector: simd/math.h.
//
//   out = cap * tanh(x / cap)          dx = dout * (1 - (out / cap)^2)
//
// One pass, parallel over blocks of elements.
#include <cmath>

#include "cpu/simd/elementwise.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::softcap {

template <class T>
void forward_kernel(T* out, const T* x, T cap, int64_t n) {
    elementwise(n, out, [=](Vec<T> v) { return cap * vtanh<T>(v / cap); }, x);
}

template <class T>
void backward_kernel(T* dx, const T* dout, const T* out, T cap, int64_t n) {
    elementwise(n, dx, [=](Vec<T> d, Vec<T> o) { return d * (1 - (o / cap) * (o / cap)); }, dout, out);
}

void check_cap(const char* name, double cap) {
    if (!(cap > 0 && cap < INFINITY)) fail(name, " must be a number above 0: got ", cap);
}

Tuple softcap_forward(const Array& x, double cap) {
    check_cap("cap", cap);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        const T* px = input<T>("x", x, x.shape);
        auto out = fresh<T>(x.shape);
        without_gil([&] { forward_kernel<T>(out, px, cap, x.size()); });
        return tuple_of({out, tuple_of({out, cap})});
    });
}

Object softcap_backward(const Array& dout, const Tuple& cache) {
    Array out = cached(cache, 0);
    double cap = cached<double>(cache, 1);
    check_cap("cached cap", cap);
    return by_dtype("cached out", out, [&](auto zero) -> Object {
        using T = decltype(zero);
        const T *pd = input<T>("dout", dout, out.shape), *po = input<T>("cached out", out, out.shape);
        auto dx = fresh<T>(out.shape);
        without_gil([&] { backward_kernel<T>(dx, pd, po, cap, out.size()); });
        return dx;
    });
}

const Register registered[] = {{"softcap_forward(x, cap)", &softcap_forward},
                               {"softcap_backward(dout, cache)", &softcap_backward}};

}  // namespace minillm::softcap
