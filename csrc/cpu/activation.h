// An activation of each number by itself: gelu.cpp, gelu_exact.cpp, relu.cpp and relu_squared.cpp.
//
//   out = act(x)          dx = dout * act'(x)
//
// One pass; nothing but x is cached, since act' costs less to compute than to read. Parallel over blocks of elements.
#pragma once

#include "cpu/simd/elementwise.h"
#include "python/register.h"

namespace minillm {

// Act::value<T>(x) is the activation of a vector, Act::slope<T>(x) its derivative.
template <class Act>
struct Activation {
    template <class T>
    static void forward_kernel(T* out, const T* x, int64_t n) {
        elementwise(n, out, [](Vec<T> v) { return Act::template value<T>(v); }, x);
    }

    template <class T>
    static void backward_kernel(T* dx, const T* dout, const T* x, int64_t n) {
        elementwise(n, dx, [](Vec<T> d, Vec<T> v) { return d * Act::template slope<T>(v); }, dout, x);
    }

    static Tuple forward(const Array& x) {
        return by_dtype("x", x, [&](auto zero) {
            using T = decltype(zero);
            const T* px = input<T>("x", x, x.shape);
            auto out = fresh<T>(x.shape);
            without_gil([&] { forward_kernel<T>(out, px, x.size()); });
            return tuple_of({out, tuple_of({x})});
        });
    }

    static Object backward(const Array& dout, const Tuple& cache) {
        Array x = cached(cache, 0);
        return by_dtype("x", x, [&](auto zero) -> Object {
            using T = decltype(zero);
            const T *pd = input<T>("dout", dout, x.shape), *px = input<T>("x", x, x.shape);
            auto dx = fresh<T>(x.shape);
            without_gil([&] { backward_kernel<T>(dx, pd, px, x.size()); });
            return dx;
        });
    }
};

}  // namespace minillm
