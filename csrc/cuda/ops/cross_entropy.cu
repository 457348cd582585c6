// Cross-entropy on a GPU: launchers, and the bindings of both steps of the ladder. Kernels: cross_entropy.cuh.
#include "cuda/ops/cross_entropy.cuh"

#include "cuda/ops/ids.h"

namespace minillm::cross_entropy {
namespace {

template <bool NAIVE, class T>
void launch_forward(T* losses, T* top, T* logsum, const T* logits, const int64_t* targets, const Rows& n,
                    stream_t stream) {
    if (NAIVE) over(n.N, naive_cross_entropy_forward<T>, stream, losses, top, logsum, logits, targets, n);
    else if (n.N)
        launch(cross_entropy_forward<T>, blocks_for(n.N, 1), threads_for_row(n.V), MOST_WARPS * sizeof(T), stream,
               losses, top, logsum, logits, targets, n);
}
template <bool NAIVE, class T>
void launch_backward(T* dlogits, const T* dout, const T* logits, const int64_t* targets, const T* top, const T* logsum,
                     const Rows& n, stream_t stream) {
    if (NAIVE) over(n.N, naive_cross_entropy_backward<T>, stream, dlogits, dout, logits, targets, top, logsum, n);
    else if (n.N)
        launch(cross_entropy_backward<T>, blocks_for(n.N, 1), threads_for_row(n.V), 0, stream, dlogits, dout, logits,
               targets, top, logsum, n);
}

template <bool NAIVE>
Tuple cross_entropy_forward_on(const Array& logits, const Array& targets, int64_t ignore_index) {
    return by_dtype("logits", logits, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* pz = on.input<T>("logits", logits, {ANY, ANY});
        const Rows n{logits.shape[0], logits.shape[1], ignore_index};
        if (!n.V) fail("logits must have at least one column: got ", logits.shape);
        const Array own = own_ids("targets", targets, {n.N}, n.V, &ignore_index);
        const int64_t* ids = on.ids("targets", own, {n.N}, n.V, &ignore_index);
        auto losses = on.fresh<T>({n.N}), top = on.fresh<T>({n.N}), logsum = on.fresh<T>({n.N});
        on.run([&](gpu::Stream s) { launch_forward<NAIVE, T>(losses, top, logsum, pz, ids, n, stream_t(s)); });
        return tuple_of({losses, tuple_of({logits, own, top, logsum, ignore_index})});
    });
}

template <bool NAIVE>
Object cross_entropy_backward_on(const Array& dout, const Tuple& cache) {
    const Array logits = cached(cache, 0), targets = cached(cache, 1), top = cached(cache, 2),
                logsum = cached(cache, 3);
    check_shape("logits", logits, {ANY, ANY});
    const auto ignore_index = cached<int64_t>(cache, 4);
    return by_dtype("logits", logits, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const Rows n{logits.shape[0], logits.shape[1], ignore_index};
        const T *pd = on.input<T>("dout", dout, {n.N}), *pz = on.input<T>("logits", logits, {n.N, n.V}),
                *pm = on.input<T>("cached top", top, {n.N}), *ps = on.input<T>("cached logsum", logsum, {n.N});
        const int64_t* ids = on.ids("targets", targets, {n.N}, n.V, &ignore_index);
        auto dlogits = on.fresh<T>({n.N, n.V});
        on.run([&](gpu::Stream s) { launch_backward<NAIVE, T>(dlogits, pd, pz, ids, pm, ps, n, stream_t(s)); });
        return dlogits;
    });
}

const Register registered[] = {
    {"cross_entropy_forward(logits, targets, ignore_index=-1)", &cross_entropy_forward_on<false>},
    {"cross_entropy_backward(dout, cache)", &cross_entropy_backward_on<false>},
    {"cross_entropy_forward_1_naive(logits, targets, ignore_index=-1)", &cross_entropy_forward_on<true>},
    {"cross_entropy_backward_1_naive(dout, cache)", &cross_entropy_backward_on<true>}};

}  // namespace
}  // namespace minillm::cross_entropy
