// The MLP of a block: bindings. Kernels and launchers: mlp.cuh.
#include "cuda/ops/mlp.cuh"
#include "cuda/ops/stored.h"

namespace minillm::mlp {

template <class T, class S>
struct Weights {
    Weight<T, S> w1, w2;
    Sizes n;
};

// The arguments that forward and backward share, checked, but for x itself.
template <class T, class S>
Weights<T, S> weights_of(Operands& on, const Array& x, const Array& fc_weight, const Array& proj_weight) {
    const int64_t C = last("x", x);
    const auto w1 = weight_of<T, S>(on, "fc_weight", fc_weight, {C, ANY});
    const int64_t F = fc_weight.shape[1];
    const auto w2 = weight_of<T, S>(on, "proj_weight", proj_weight, {F, ANY});
    return {w1, w2, {x.rows(), C, F, proj_weight.shape[1]}};
}

template <class Step>
Tuple mlp_forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& proj_weight,
                  const Array& proj_bias) {
    return by_number<Step>("x", x, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        const T* px = on.input<T>("x", x, x.shape);
        const auto [w1, w2, n] = weights_of<T, S>(on, x, fc_weight, proj_weight);
        const T *b1 = on.input<T>("fc_bias", fc_bias, {n.F}), *b2 = on.input<T>("proj_bias", proj_bias, {n.D});
        auto out = on.fresh<T>(x.with_last(n.D));
        auto kept_x = kept<S>(on, x, px), h = fresh_stored<T, S>(on, {n.N, n.F});
        S* a = on.scratch<S>(n.N * n.F);
        on.run([&, w1 = w1, w2 = w2, n = n](gpu::Stream stream) {
            const S* rounded_x = gemm::rounded<S>(kept_x.data, px, n.N * n.C, stream);
            forward<Step, T, S>(out, h, a, rounded_x, w1.get(stream), b1, w2.get(stream), b2, n, stream);
        });
        return tuple_of({out, tuple_of({kept_x, fc_weight, proj_weight, h})});
    });
}

template <class Step>
Tuple mlp_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), h = cached(cache, 3);
    return by_number<Step>(x, dout, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        last("x", x);
        const S* px = stored<T, S>(on, "cached x", x, x.shape);
        const auto [w1, w2, n] = weights_of<T, S>(on, x, cached(cache, 1), cached(cache, 2));
        const S* ph = stored<T, S>(on, "cached h", h, {n.N, n.F});
        const T* pd = on.input<T>("dout", dout, x.with_last(n.D));
        auto dx = on.fresh<T>(x.shape);
        auto d = on.gradients<T>(into, {{n.C, n.F}, {n.F}, {n.F, n.D}, {n.D}});
        S *a = on.scratch<S>(n.N * n.F), *dh = on.scratch<S>(n.N * n.F), *room = on.scratch<S>(n.N * n.D);
        T* sums = on.scratch<T>(n.sums_room());
        on.run([&, w1 = w1, w2 = w2, n = n](gpu::Stream stream) {
            const S* rounded_dout = gemm::rounded<S>(room, pd, n.N * n.D, stream);
            backward<Step, T, S>({dx, d[0], d[1], d[2], d[3]}, !into.is_none(), a, dh, sums, rounded_dout, pd, px, ph,
                                 w1.get(stream), w2.get(stream), n, stream);
        });
        return tuple_of({dx, d[0], d[1], d[2], d[3]});
    });
}

const Register registered[] = {
    {"mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias)", &mlp_forward<gemm::Tiled>},
    {"mlp_backward(dout, cache, into=None)", &mlp_backward<gemm::Tiled>},
    {"mlp_forward_bf16(x, fc_weight, fc_bias, proj_weight, proj_bias)", &mlp_forward<gemm::TensorCores>},
    {"mlp_backward_bf16(dout, cache, into=None)", &mlp_backward<gemm::TensorCores>}};

}  // namespace minillm::mlp
