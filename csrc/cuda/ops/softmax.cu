// Softmax of each row on a GPU: launchers and bindings. Kernels: softmax.cuh.
#include "cuda/ops/softmax.cuh"

#include "cuda/ops/operands.h"

namespace minillm::softmax {
namespace {
// `best`, a block a row, or `naive`, a thread a row.
template <bool NAIVE, class T, class Best, class Naive, class... In>
void by_row(Best best, Naive naive, T* out, int64_t N, int64_t V, gpu::Stream stream, const In*... in) {
    const auto s = stream_t(stream);
    if (NAIVE) over(N, naive, s, out, in..., N, V);
    else if (N) launch(best, blocks_for(N, 1), threads_for_row(V), MOST_WARPS * sizeof(T), s, out, in..., V);
}

template <bool NAIVE>
Tuple softmax_forward(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t V = last("x", x);
        if (!V) fail("x must have at least one number a row: got ", x.shape);
        const T* px = on.input<T>("x", x, x.shape);
        auto out = on.fresh<T>(x.shape);
        on.run([&](gpu::Stream s) {
            by_row<NAIVE>(&softmax::softmax_forward<T>, &naive_softmax_forward<T>, out.data, x.rows(), V, s, px);
        });
        return tuple_of({out, tuple_of({out})});
    });
}

template <bool NAIVE>
Object softmax_backward(const Array& dout, const Tuple& cache) {
    const Array p = cached(cache, 0);
    return by_dtype("cached p", p, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const int64_t V = last("cached p", p);
        const T *pp = on.input<T>("cached p", p, p.shape), *pd = on.input<T>("dout", dout, p.shape);
        auto dx = on.fresh<T>(p.shape);
        on.run([&](gpu::Stream s) {
            if (V)
                by_row<NAIVE>(&softmax::softmax_backward<T>, &naive_softmax_backward<T>, dx.data, p.rows(), V, s, pd,
                              pp);
        });
        return dx;
    });
}

const Register registered[] = {
    {"softmax_forward(x)", &softmax_forward<false>},
    {"softmax_backward(dout, cache)", &softmax_backward<false>},
    {"softmax_forward_1_naive(x)", &softmax_forward<true>},
    {"softmax_backward_1_naive(dout, cache)", &softmax_backward<true>},
};
}  // namespace
}  // namespace minillm::softmax
