// Logit soft-cap on a GPU: launchers and bindings. Kernels: softcap.cuh and elementwise.cuh.
#include "cuda/ops/softcap.cuh"

#include "cuda/ops/operands.h"

namespace minillm::softcap {
namespace {
void check_cap(const char* name, double cap) {
    if (!(cap > 0 && cap < INFINITY)) fail(name, " must be a number above 0: got ", cap);
}

template <bool NAIVE>
Tuple softcap_forward(const Array& x, double cap) {
    check_cap("cap", cap);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* px = on.input<T>("x", x, x.shape);
        auto out = on.fresh<T>(x.shape);
        on.run([&](gpu::Stream s) {
            cuda::run_elementwise<NAIVE>(Capped<T>{T(cap)}, out.data, x.size(), stream_t(s), px);
        });
        return tuple_of({out, tuple_of({out, cap})});
    });
}

template <bool NAIVE>
Object softcap_backward(const Array& dout, const Tuple& cache) {
    const Array out = cached(cache, 0);
    const double cap = cached<double>(cache, 1);
    check_cap("cached cap", cap);
    return by_dtype("cached out", out, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const T *po = on.input<T>("cached out", out, out.shape), *pd = on.input<T>("dout", dout, out.shape);
        auto dx = on.fresh<T>(out.shape);
        on.run([&](gpu::Stream s) {
            cuda::run_elementwise<NAIVE>(CappedBackward<T>{T(cap)}, dx.data, out.size(), stream_t(s), pd, po);
        });
        return dx;
    });
}

const Register registered[] = {
    {"softcap_forward(x, cap)", &softcap_forward<false>},
    {"softcap_backward(dout, cache)", &softcap_backward<false>},
    {"softcap_forward_1_naive(x, cap)", &softcap_forward<true>},
    {"softcap_backward_1_naive(dout, cache)", &softcap_backward<true>},
};
}  // namespace
}  // namespace minillm::softcap
