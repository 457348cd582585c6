// The residual connection on a GPU: launchers and bindings. Kernels: residual.cuh and elementwise.cuh.
#include "cuda/ops/residual.cuh"

#include "cuda/ops/operands.h"

namespace minillm::residual {
namespace {
template <bool NAIVE>
Tuple residual_forward(const Array& x, const Array& y) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T *px = on.input<T>("x", x, x.shape), *py = on.input<T>("y", y, x.shape);
        auto out = on.fresh<T>(x.shape);
        on.run([&](gpu::Stream s) { cuda::run_elementwise<NAIVE>(Sum(), out.data, x.size(), stream_t(s), px, py); });
        return tuple_of({out, tuple_of({Object(x.shape), x.dtype})});
    });
}

template <bool NAIVE>
Tuple residual_backward(const Array& dout, const Tuple& cache) {
    const Shape shape = cached<Shape>(cache, 0);
    return by_dtype("cached x", as_text(cached<Object>(cache, 1)), [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* pd = on.input<T>("dout", dout, shape);
        auto dx = on.fresh<T>(shape), dy = on.fresh<T>(shape);
        on.run([&](gpu::Stream s) {
            cuda::run_elementwise_pair<NAIVE>(Twice(), dx.data, dy.data, dout.size(), stream_t(s), pd);
        });
        return tuple_of({dx, dy});
    });
}

const Register registered[] = {
    {"residual_forward(x, y)", &residual_forward<false>},
    {"residual_backward(dout, cache)", &residual_backward<false>},
    {"residual_forward_1_naive(x, y)", &residual_forward<true>},
    {"residual_backward_1_naive(dout, cache)", &residual_backward<true>},
};
}  // namespace
}  // namespace minillm::residual
