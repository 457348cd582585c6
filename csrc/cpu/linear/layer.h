// The binding of a linear layer, for every variant: a class template with forward and backward on raw pointers.
#pragma once

#include "cpu/linear/column_sums.h"
#include "python/register.h"

namespace minillm::linear {

// FLOAT_ONLY: the variant takes float32 and nothing else.
template <bool FLOAT_ONLY, class F>
auto by_float(const char* name, const Array& a, F f) {
    if constexpr (!FLOAT_ONLY) return by_dtype(name, a, f);
    else return input<float>(name, a, a.shape), f(float());
}

template <template <class> class Layer, bool FLOAT_ONLY>
Tuple forward(const Array& x, const Array& weight, const Array& bias) {
    return by_float<FLOAT_ONLY>("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t I = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {I, ANY});
        int64_t J = weight.shape[1];
        const T* pb = input<T>("bias", bias, {J});
        auto out = fresh<T>(x.with_last(J));
        without_gil([&] { Layer<T>::forward(out, px, pw, pb, N, I, J); });
        return tuple_of({out, tuple_of({x, weight})});
    });
}

template <template <class> class Layer, bool FLOAT_ONLY>
Tuple backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1);
    return by_float<FLOAT_ONLY>("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t I = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {I, ANY});
        int64_t J = weight.shape[1];
        const T* pd = input<T>("dout", dout, x.with_last(J));
        auto dx = fresh<T>(x.shape);
        auto d = gradients<T>(into, {{I, J}, {J}});                                // dweight, dbias
        without_gil([&] { Layer<T>::backward(dx, d[0], d[1], !into.is_none(), pd, px, pw, N, I, J); });
        return tuple_of({dx, d[0], d[1]});
    });
}

// Makes a variant known: "" is the default, "_1_naive" and so on the others.
template <template <class> class Layer, bool FLOAT_ONLY = false>
struct Variant {
    Register forward_, backward_;
    explicit Variant(const string& name)
        : forward_("linear_forward" + name + "(x, weight, bias)", &forward<Layer, FLOAT_ONLY>),
          backward_("linear_backward" + name + "(dout, cache, into=None)", &backward<Layer, FLOAT_ONLY>) {}
};

}  // namespace minillm::linear
