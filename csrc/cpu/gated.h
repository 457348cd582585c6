// A gated product, out = act(gate) * up, for an activation: swiglu.cpp and geglu.cpp.
//
//   dup = dout * act(gate)          dgate = dout * up * act'(gate)
//
// One pass each way; the activation costs less to compute again than to read. Parallel over blocks of elements.
#pragma once

#include "cpu/simd/elementwise.h"
#include "python/register.h"

namespace minillm {

// Act::value<T>(x) is the activation of a vector, Act::value_and_slope<T>(x, slope) sets its derivative as well.
template <class Act>
struct Gated {
    template <class T>
    static void forward_kernel(T* out, const T* gate, const T* up, int64_t n) {
        elementwise(n, out, [](Vec<T> g, Vec<T> u) { return Act::template value<T>(g) * u; }, gate, up);
    }

    template <class T>
    static void backward_kernel(T* dgate, T* dup, const T* dout, const T* gate, const T* up, int64_t n) {
        elementwise(
            n, dgate, dup,
            [](Vec<T>& to_up, Vec<T> d, Vec<T> g, Vec<T> u) {
                Vec<T> slope, value = Act::template value_and_slope<T>(g, slope);
                to_up = d * value;
                return d * u * slope;
            },
            dout, gate, up);
    }

    static Tuple forward(const Array& gate, const Array& up) {
        return by_dtype("gate", gate, [&](auto zero) {
            using T = decltype(zero);
            const T *pg = input<T>("gate", gate, gate.shape), *pu = input<T>("up", up, gate.shape);
            auto out = fresh<T>(gate.shape);
            without_gil([&] { forward_kernel<T>(out, pg, pu, gate.size()); });
            return tuple_of({out, tuple_of({gate, up})});
        });
    }

    static Tuple backward(const Array& dout, const Tuple& cache) {
        Array gate = cached(cache, 0), up = cached(cache, 1);
        return by_dtype("gate", gate, [&](auto zero) {
            using T = decltype(zero);
            const T *pd = input<T>("dout", dout, gate.shape), *pg = input<T>("gate", gate, gate.shape),
                    *pu = input<T>("cached up", up, gate.shape);
            auto dgate = fresh<T>(gate.shape), dup = fresh<T>(gate.shape);
            without_gil([&] { backward_kernel<T>(dgate, dup, pd, pg, pu, gate.size()); });
            return tuple_of({dgate, dup});
        });
    }
};

}  // namespace minillm
