// SwiGLU. Formulas: minillm/ops/swiglu.py; the logistic function of a vector: simd/math.h.
//
//   out = gate * s * up,  s = 1 / (1 + exp(-gate))
//   dup = dout * gate * s          dgate = dout * up * (s + gate * s * (1 - s))
//
// One pass; s costs less to compute again than to read. Parallel over blocks of elements.
#include "cpu/simd/elementwise.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::swiglu {

template <class T>
void forward_kernel(T* out, const T* gate, const T* up, int64_t n) {
    elementwise(n, out, [](Vec<T> g, Vec<T> u) { return g / (vexp<T>(-g) + 1) * u; }, gate, up);
}

template <class T>
void backward_kernel(T* dgate, T* dup, const T* dout, const T* gate, const T* up, int64_t n) {
    elementwise(n, dgate, [](Vec<T> d, Vec<T> g, Vec<T> u) { return d * u * vsilu_slope<T>(g); }, dout, gate, up);
    elementwise(n, dup, [](Vec<T> d, Vec<T> g) { return d * (g / (vexp<T>(-g) + 1)); }, dout, gate);
}

Tuple swiglu_forward(const Array& gate, const Array& up) {
    return by_dtype("gate", gate, [&](auto zero) {
        using T = decltype(zero);
        const T *pg = input<T>("gate", gate, gate.shape), *pu = input<T>("up", up, gate.shape);
        auto out = fresh<T>(gate.shape);
        without_gil([&] { forward_kernel<T>(out, pg, pu, gate.size()); });
        return tuple_of({out, tuple_of({gate, up})});
    });
}

Tuple swiglu_backward(const Array& dout, const Tuple& cache) {
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

const Register registered[] = {{"swiglu_forward(gate, up)", &swiglu_forward},
                               {"swiglu_backward(dout, cache)", &swiglu_backward}};

}  // namespace minillm::swiglu
