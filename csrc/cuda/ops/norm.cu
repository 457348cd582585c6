// The norms on a GPU: what layernorm.cu, residual_layernorm.cu, rmsnorm.cu and residual_rmsnorm.cu call. Kernels:
// norm.cuh and norm_naive.cuh.
#include "cuda/ops/norm.h"

#include <cmath>

#include "cuda/ops/norm_naive.cuh"
#include "cuda/ops/operands.h"

namespace minillm::cuda {
template <bool CENTRED, bool NAIVE>
Tuple norm_forward(const Array& x, const Array* y, const Array& weight, const Array* bias, double eps) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t C = last("x", x), N = C ? x.rows() : 0;
        NormForward<T> a{};
        a.x = on.input<T>("x", x, x.shape);
        a.y = y ? on.input<T>("y", *y, x.shape) : nullptr;
        a.weight = on.input<T>("weight", weight, {C});
        a.bias = bias ? on.input<T>("bias", *bias, {C}) : nullptr;
        if (!(eps > 0 && eps < INFINITY)) fail("eps must be a number above 0: got ", eps);
        auto s = y ? on.fresh<T>(x.shape) : Result<T>(x, nullptr);
        auto out = on.fresh<T>(x.shape), rstd = on.fresh<T>({N});
        auto mean = CENTRED ? on.fresh<T>({N}) : Result<T>(Object(), nullptr);
        a.s = s, a.out = out, a.mean = mean, a.rstd = rstd, a.eps = T(eps), a.N = N, a.C = C;
        on.run([&](gpu::Stream stream) {
            if (NAIVE) run_naive_norm_forward<T, CENTRED>(a, stream_t(stream));
            else run_norm_forward<T, CENTRED>(a, stream_t(stream));
        });
        return tuple_of({s, out, CENTRED ? tuple_of({s, weight, mean, rstd}) : tuple_of({s, weight, rstd})});
    });
}

template <bool CENTRED, bool NAIVE>
Tuple norm_backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), weight = cached(cache, 1), rstd = cached(cache, CENTRED ? 3 : 2);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t C = last("x", x), N = C ? x.rows() : 0;
        NormBackward<T> a{};
        a.x = on.input<T>("x", x, x.shape);
        a.weight = on.input<T>("weight", weight, {C});
        a.mean = CENTRED ? on.input<T>("cached mean", cached(cache, 2), {N}) : nullptr;
        a.rstd = on.input<T>("cached rstd", rstd, {N});
        a.dout = on.input<T>("dout", dout, x.shape);
        a.dsum = dsum.is_none() ? nullptr : on.input<T>("dsum", argument<Array>(dsum, "dsum"), x.shape);
        auto dx = on.fresh<T>(x.shape);
        auto d = on.gradients<T>(into, std::vector<Shape>(CENTRED ? 2 : 1, Shape{C}));
        a.dx = dx, a.N = N, a.C = C;
        plan(a);
        a.parts = on.scratch<T>(NAIVE ? 0 : a.count * 2 * a.width);
        T *dweight = d[0], *dbias = CENTRED ? d.back().data : nullptr;
        on.run([&](gpu::Stream stream) {
            if (NAIVE) run_naive_norm_backward<T, CENTRED>(a, dweight, dbias, !into.is_none(), stream_t(stream));
            else run_norm_backward<T, CENTRED>(a, dweight, dbias, !into.is_none(), stream_t(stream));
        });
        return CENTRED ? tuple_of({dx, d[0], d.back()}) : tuple_of({dx, d[0]});
    });
}

#define INSTANTIATE(CENTRED, NAIVE)                                                                              \
    template Tuple norm_forward<CENTRED, NAIVE>(const Array&, const Array*, const Array&, const Array*, double); \
    template Tuple norm_backward<CENTRED, NAIVE>(const Object&, const Array&, const Tuple&, const Object&);
INSTANTIATE(true, true)
INSTANTIATE(true, false)
INSTANTIATE(false, true)
INSTANTIATE(false, false)
}  // namespace minillm::cuda
