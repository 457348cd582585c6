// Distillation on a GPU: launchers and bindings. Kernels: distillation_loss.cuh.
#include "cuda/ops/distillation_loss.cuh"

#include <cmath>

#include "cuda/ops/ids.h"

namespace minillm::distillation_loss {
namespace {

template <class T>
void launch_forward(T* losses, T* kept, const Distillation<T>& d, stream_t stream) {
    if (d.N)
        launch(distillation_forward<T>, blocks_for(d.N, 1), threads_for_row(d.V), MOST_WARPS * sizeof(T), stream,
               losses, kept, d);
}
template <class T>
void launch_backward(T* dlogits, const T* dout, const T* kept, const Distillation<T>& d, stream_t stream) {
    if (d.N)
        launch(distillation_backward<T>, blocks_for(d.N, 1), threads_for_row(d.V), 0, stream, dlogits, dout, kept, d);
}

// The arrays and numbers of both directions, checked.
template <class T>
Distillation<T> distillation(Operands& on, const Array& logits, const Array& teacher, const Array& targets,
                             double temperature, double weight, int64_t ignore_index) {
    const T* pz = on.input<T>("logits", logits, {ANY, ANY});
    const int64_t N = logits.shape[0], V = logits.shape[1];
    if (!V) fail("logits must have at least one column: got ", logits.shape);
    const T* pu = on.input<T>("teacher", teacher, {N, V});
    if (!(temperature > 0 && std::isfinite(temperature)))
        fail("temperature must be a number above 0: got ", temperature);
    if (!(weight >= 0 && weight <= 1)) fail("weight must be in [0, 1]: got ", weight);
    return {pz, pu, on.ids("targets", targets, {N}, V, &ignore_index), T(temperature), T(weight), ignore_index, N, V};
}

Tuple distillation_loss_forward(const Array& logits, const Array& teacher, const Array& targets, double temperature,
                                double weight, int64_t ignore_index) {
    return by_dtype("logits", logits, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        check_shape("logits", logits, {ANY, ANY});
        const int64_t N = logits.shape[0];
        const Array own = own_ids("targets", targets, {N}, logits.shape[1], &ignore_index);
        const auto d = distillation<T>(on, logits, teacher, own, temperature, weight, ignore_index);
        auto losses = on.fresh<T>({N}), kept = on.fresh<T>({5, N});
        on.run([&](gpu::Stream s) { launch_forward<T>(losses, kept, d, stream_t(s)); });
        return tuple_of({losses, tuple_of({logits, teacher, own, kept, temperature, weight, ignore_index})});
    });
}

Object distillation_loss_backward(const Array& dout, const Tuple& cache) {
    const Array logits = cached(cache, 0), teacher = cached(cache, 1), targets = cached(cache, 2),
                kept = cached(cache, 3);
    check_shape("logits", logits, {ANY, ANY});
    const auto temperature = cached<double>(cache, 4), weight = cached<double>(cache, 5);
    const auto ignore_index = cached<int64_t>(cache, 6);
    return by_dtype("logits", logits, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const int64_t N = logits.shape[0];
        const T *pd = on.input<T>("dout", dout, {N}), *pk = on.input<T>("cached sums", kept, {5, N});
        const auto d = distillation<T>(on, logits, teacher, targets, temperature, weight, ignore_index);
        auto dlogits = on.fresh<T>(logits.shape);
        on.run([&](gpu::Stream s) { launch_backward<T>(dlogits, pd, pk, d, stream_t(s)); });
        return dlogits;
    });
}

const Register registered[] = {
    {"distillation_loss_forward(logits, teacher, targets, temperature=1.0, weight=0.9, ignore_index=-1)",
     &distillation_loss_forward},
    {"distillation_loss_backward(dout, cache)", &distillation_loss_backward}};

}  // namespace
}  // namespace minillm::distillation_loss
