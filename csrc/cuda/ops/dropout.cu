// Dropout on a GPU: launchers, and the bindings of both steps of the ladder. Kernels: dropout.cuh.
#include "cuda/ops/dropout_mask.h"

namespace minillm::dropout {
namespace {

template <bool NAIVE, class T>
void launch_forward(T* out, uint8_t* keep, const T* x, int64_t n, const Mask<T>& mask, stream_t stream) {
    if (NAIVE) over(n, naive_dropout_forward<T>, stream, out, keep, x, n, mask);
    else over(mask_bytes(n), dropout_forward<T>, stream, out, keep, x, n, mask, aligned({out, x}, n));
}
template <bool NAIVE, class T>
void launch_backward(T* dx, const T* dout, const uint8_t* keep, int64_t n, T scale, stream_t stream) {
    if (NAIVE) over(n, naive_dropout_backward<T>, stream, dx, dout, keep, n, scale);
    else over((n + 3) / 4, dropout_backward<T>, stream, dx, dout, keep, n, scale, aligned({dx, dout}, n));
}

template <bool NAIVE>
Tuple dropout_forward_on(const Array& x, double p, const Tuple& key) {
    check_p(p);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* px = on.input<T>("x", x, x.shape);
        const Mask<T> mask = mask_of<T>(p, philox_key(key));
        auto out = on.fresh<T>(x.shape);
        auto keep = on.fresh<uint8_t>({mask_bytes(x.size())});
        on.run([&](gpu::Stream s) { launch_forward<NAIVE, T>(out, keep, px, x.size(), mask, stream_t(s)); });
        return tuple_of({out, tuple_of({keep, p, x.shape, x.dtype})});
    });
}

template <bool NAIVE>
Object dropout_backward_on(const Array& dout, const Tuple& cache) {
    const Array keep = cached(cache, 0);
    const auto p = cached<double>(cache, 1);
    check_p(p);
    return by_dtype("x", cached<string>(cache, 3), [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const T* pd = on.input<T>("dout", dout, cached<Shape>(cache, 2));
        const uint8_t* pk = on.input<uint8_t>("cached keep", keep, {mask_bytes(dout.size())});
        auto dx = on.fresh<T>(dout.shape);
        on.run([&](gpu::Stream s) { launch_backward<NAIVE, T>(dx, pd, pk, dout.size(), T(1 / (1 - p)), stream_t(s)); });
        return dx;
    });
}

const Register registered[] = {{"dropout_forward(x, p, key)", &dropout_forward_on<false>},
                               {"dropout_backward(dout, cache)", &dropout_backward_on<false>},
                               {"dropout_forward_1_naive(x, p, key)", &dropout_forward_on<true>},
                               {"dropout_backward_1_naive(dout, cache)", &dropout_backward_on<true>}};

}  // namespace
}  // namespace minillm::dropout
