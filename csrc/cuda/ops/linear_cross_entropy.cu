// The tied head and the loss as one op: bindings. Kernels and launchers: linear_cross_entropy.cuh.
#include "cuda/ops/ids.h"
#include "cuda/ops/linear_cross_entropy.cuh"
#include "cuda/ops/stored.h"

namespace minillm::linear_cross_entropy {

template <class Step>
Tuple linear_cross_entropy_forward(const Array& x, const Array& wte, const Array& targets, int64_t ignore_index) {
    return by_number<Step>("x", x, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        const T* px = on.input<T>("x", x, {ANY, ANY});
        const auto w = weight_of<T, S>(on, "wte", wte, {ANY, x.shape[1]});
        const Sizes n = {x.shape[0], wte.shape[0], x.shape[1]};
        if (!n.V) fail("wte must have at least one row: got ", wte.shape);
        const Array own = own_ids("targets", targets, {n.N}, n.V, &ignore_index);
        const Targets y = {on.ids("targets", own, {n.N}, n.V, &ignore_index), ignore_index};
        auto losses = on.fresh<T>({n.N}), top = on.fresh<T>({n.N}), logsum = on.fresh<T>({n.N});
        auto kept_x = kept<S>(on, x, px);
        T* logits = on.scratch<T>(n.room());
        on.run([&](gpu::Stream stream) {
            const S* rounded_x = gemm::rounded<S>(kept_x.data, px, n.N * n.C, stream);
            forward<Step, T, S>(losses, top, logsum, logits, rounded_x, w.get(stream), y, n, stream);
        });
        return tuple_of({losses, tuple_of({kept_x, wte, own, ignore_index, top, logsum})});
    });
}

template <class Step>
Tuple linear_cross_entropy_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), wte = cached(cache, 1);
    return by_number<Step>(x, dout, [&](auto zero) {
        using T = decltype(zero);
        using S = typename Step::template Stored<T>;
        Operands on;
        const S* px = stored<T, S>(on, "cached x", x, {ANY, ANY});
        const auto w = weight_of<T, S>(on, "wte", wte, {ANY, x.shape[1]});
        const Sizes n = {x.shape[0], wte.shape[0], x.shape[1]};
        const auto ignore_index = cached<int64_t>(cache, 3);
        const Targets y = {on.ids("cached targets", cached(cache, 2), {n.N}, n.V, &ignore_index), ignore_index};
        const T *pd = on.input<T>("dout", dout, {n.N}), *top = on.input<T>("cached top", cached(cache, 4), {n.N}),
                *logsum = on.input<T>("cached logsum", cached(cache, 5), {n.N});
        auto dx = on.fresh<T>({n.N, n.C});
        auto dwte = on.gradients<T>(into, {{n.V, n.C}})[0];
        S* dz = on.scratch<S>(n.room());
        on.run([&](gpu::Stream stream) {
            backward<Step, T, S>(dx, dwte, !into.is_none(), dz, pd, top, logsum, px, w.get(stream), y, n, stream);
        });
        return tuple_of({dx, dwte});
    });
}

const Register registered[] = {
    {"linear_cross_entropy_forward(x, wte, targets, ignore_index=-1)", &linear_cross_entropy_forward<gemm::Tiled>},
    {"linear_cross_entropy_backward(dout, cache, into=None)", &linear_cross_entropy_backward<gemm::Tiled>},
    {"linear_cross_entropy_forward_bf16(x, wte, targets, ignore_index=-1)",
     &linear_cross_entropy_forward<gemm::TensorCores>},
    {"linear_cross_entropy_backward_bf16(dout, cache, into=None)", &linear_cross_entropy_backward<gemm::TensorCores>}};

}  // namespace minillm::linear_cross_entropy
