// The binding of a linear layer whose weight is stored (I, J), or TRANSPOSED (J, I), for a step of the matmul ladder.
#pragma once

#include "cuda/ops/linear.cuh"
#include "cuda/ops/stored.h"

namespace minillm::linear {

template <bool TRANSPOSED>
Shape weight_shape(int64_t I, int64_t J) {
    return TRANSPOSED ? Shape{J, I} : Shape{I, J};
}

template <class Step, bool TRANSPOSED>
Tuple layer_forward(const Array& x, const Array& weight, const Object& bias) {
    return by_number<Step>("x", x, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        const int64_t I = last("x", x);
        const T* px = on.input<T>("x", x, x.shape);
        const auto w = weight_of<T, S>(on, "weight", weight, weight_shape<TRANSPOSED>(I, ANY));
        const Layer n = {x.rows(), I, weight.shape[!TRANSPOSED]};
        const T* pb = bias.is_none() ? nullptr : on.input<T>("bias", argument<Array>(bias, "bias"), {n.J});
        auto out = on.fresh<T>(x.with_last(n.J));
        auto kept_x = kept<S>(on, x, px);
        on.run([&](gpu::Stream stream) {
            const S* rounded_x = gemm::rounded<S>(kept_x.data, px, x.size(), stream);
            forward<Step, TRANSPOSED, T, S>(out, rounded_x, w.get(stream), pb, n, stream);
        });
        return tuple_of({out, tuple_of({kept_x, weight})});
    });
}

template <class Step, bool TRANSPOSED>
Tuple layer_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), weight = cached(cache, 1);
    return by_number<Step>(x, dout, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        const int64_t I = last("x", x);
        const S* px = stored<T, S>(on, "cached x", x, x.shape);
        const auto w = weight_of<T, S>(on, "weight", weight, weight_shape<TRANSPOSED>(I, ANY));
        const Layer n = {x.rows(), I, weight.shape[!TRANSPOSED]};
        const T* pd = on.input<T>("dout", dout, x.with_last(n.J));
        auto dx = on.fresh<T>(x.shape);
        auto d = on.gradients<T>(into, {weight_shape<TRANSPOSED>(n.I, n.J), {n.J}});                // dweight, dbias
        T* sums = on.scratch<T>(n.sums_room());
        S* room = std::is_same_v<T, S> ? nullptr : on.scratch<S>(n.N * n.J);
        on.run([&](gpu::Stream stream) {
            const S* rounded_dout = gemm::rounded<S>(room, pd, n.N * n.J, stream);
            backward<Step, TRANSPOSED, T, S>(dx, d[0], d[1], !into.is_none(), sums, rounded_dout, pd, px, w.get(stream),
                                             n, stream);
        });
        return tuple_of({dx, d[0], d[1]});
    });
}

}  // namespace minillm::linear
