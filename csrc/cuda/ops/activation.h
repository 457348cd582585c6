// Launchers and bindings of what activation.cuh describes, for an activation Act; NAIVE: step 1 of the ladder.
#pragma once

#include "cuda/ops/activation.cuh"
#include "cuda/ops/operands.h"

namespace minillm::cuda {
template <class Act, bool NAIVE>
Tuple activation_forward(const Array& x) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* px = on.input<T>("x", x, x.shape);
        auto out = on.fresh<T>(x.shape);
        on.run([&](gpu::Stream s) { run_elementwise<NAIVE>(Activated<Act>(), out.data, x.size(), stream_t(s), px); });
        return tuple_of({out, tuple_of({x})});
    });
}

template <class Act, bool NAIVE>
Object activation_backward(const Array& dout, const Tuple& cache) {
    const Array x = cached(cache, 0);
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const T *px = on.input<T>("x", x, x.shape), *pd = on.input<T>("dout", dout, x.shape);
        auto dx = on.fresh<T>(x.shape);
        on.run([&](gpu::Stream s) {
            run_elementwise<NAIVE>(ActivatedBackward<Act>(), dx.data, x.size(), stream_t(s), pd, px);
        });
        return dx;
    });
}

template <class Act, bool NAIVE>
Tuple gated_forward(const Array& gate, const Array& up) {
    return by_dtype("gate", gate, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T *pg = on.input<T>("gate", gate, gate.shape), *pu = on.input<T>("up", up, gate.shape);
        auto out = on.fresh<T>(gate.shape);
        on.run(
            [&](gpu::Stream s) { run_elementwise<NAIVE>(Gated<Act>(), out.data, gate.size(), stream_t(s), pg, pu); });
        return tuple_of({out, tuple_of({gate, up})});
    });
}

template <class Act, bool NAIVE>
Tuple gated_backward(const Array& dout, const Tuple& cache) {
    const Array gate = cached(cache, 0), up = cached(cache, 1);
    return by_dtype("gate", gate, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T *pg = on.input<T>("gate", gate, gate.shape), *pu = on.input<T>("cached up", up, gate.shape),
                *pd = on.input<T>("dout", dout, gate.shape);
        auto dgate = on.fresh<T>(gate.shape), dup = on.fresh<T>(gate.shape);
        on.run([&](gpu::Stream s) {
            run_elementwise_pair<NAIVE>(GatedBackward<Act>(), dgate.data, dup.data, gate.size(), stream_t(s), pd, pg,
                                        pu);
        });
        return tuple_of({dgate, dup});
    });
}
}  // namespace minillm::cuda
