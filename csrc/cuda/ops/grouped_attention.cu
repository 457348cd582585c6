// Grouped attention on a GPU: the bindings of both steps of the ladder. Kernels: grouped_attention.cuh.
#include "cuda/ops/grouped_attention.cuh"

#include "cuda/ops/attention_options.h"

namespace minillm::grouped_attention {
namespace {
using namespace attention;

struct Grouped {
    int64_t heads;                          // of keys
    Sizes n;
};
Grouped sizes_of(const Array& q, const Array& k, int64_t n_head) {
    check_shape("q", q, {ANY, ANY, ANY});
    check_shape("k", k, {q.shape[0], q.shape[1], ANY});
    const int64_t width = q.shape[2];
    if (n_head < 1 || n_head > width || width % n_head)
        fail("q must have a last axis of n_head * HS: got ", width, " with n_head=", n_head);
    const int64_t HS = width / n_head, heads = k.shape[2] / HS;
    if (k.shape[2] % HS || !heads || n_head % heads)
        fail("k must have a last axis of heads of ", HS, " numbers, whose count divides n_head=", n_head, ": got ",
             k.shape[2]);
    check_head("q", HS, q.shape[1]);
    Sizes n = {q.shape[0], n_head, int(q.shape[1]), int(HS), 1 / std::sqrt(double(HS)), true};
    n.group = int(n_head / heads);
    return {heads, n};
}

template <Variant VARIANT>
Tuple grouped_attention_forward(const Array& q, const Array& k, const Array& v, int64_t n_head, int64_t window,
                                double softcap, const Object& sinks) {
    return by_dtype("q", q, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const Grouped grouped = sizes_of(q, k, n_head);
        const int64_t heads = grouped.heads;
        Sizes n = grouped.n;
        const T *pq = on.input<T>("q", q, q.shape), *pk = on.input<T>("k", k, k.shape),
                *pv = on.input<T>("v", v, k.shape);
        const T* ps = options_of<T>(on, n, window, softcap, sinks);
        auto out = on.fresh<T>(q.shape), lse = on.fresh<T>({n.B, n.NH, n.T});
        const Forward<T> arrays = {side_by_side(pq, n.T, n.NH, n.HS),
                                   side_by_side(pk, n.T, heads, n.HS),
                                   side_by_side(pv, n.T, heads, n.HS),
                                   side_by_side(out.data, n.T, n.NH, n.HS),
                                   lse,
                                   ps};
        const Object cached_sinks = sinks.is_none() ? on.fresh<T>({0}) : sinks;
        on.run([&](gpu::Stream s) { forward(VARIANT, arrays, n, s); });
        return tuple_of({out, tuple_of({q, k, v, n_head, window, cached_sinks, softcap, out, lse})});
    });
}

template <class T>
void launch_sink_gradients(T* dsinks, const T* sinks, const T* lse, const T* delta, const Sizes& n, stream_t stream) {
    launch(sink_gradients<T>, dim3(unsigned(n.NH)), cuda::threads_for(n.T), softmax::MOST_WARPS * sizeof(T), stream,
           dsinks, sinks, lse, delta, n);
}

template <Variant VARIANT>
Tuple grouped_attention_backward(const Array& dout, const Tuple& cache) {
    const Array q = cached(cache, 0), k = cached(cache, 1), v = cached(cache, 2), sinks = cached(cache, 5),
                out = cached(cache, 7), lse = cached(cache, 8);
    const auto n_head = cached<int64_t>(cache, 3), window = cached<int64_t>(cache, 4);
    const auto softcap = cached<double>(cache, 6);
    return by_dtype("q", q, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const Grouped grouped = sizes_of(q, k, n_head);
        const int64_t heads = grouped.heads;
        Sizes n = grouped.n;
        const bool none = sinks.shape == Shape{0};
        const T *pd = on.input<T>("dout", dout, q.shape), *pq = on.input<T>("q", q, q.shape),
                *pk = on.input<T>("k", k, k.shape), *pv = on.input<T>("cached v", v, k.shape),
                *po = on.input<T>("cached out", out, q.shape),
                *pl = on.input<T>("cached logsumexp", lse, {n.B, n.NH, n.T}),
                *ps = on.input<T>("cached sinks", sinks, {none ? 0 : n.NH});
        options_of<T>(on, n, window, softcap, Object());
        auto dq = on.fresh<T>(q.shape), dk = on.fresh<T>(k.shape), dv = on.fresh<T>(k.shape);
        auto dsinks = on.fresh<T>({none ? 0 : n.NH});
        T* delta = on.scratch<T>(n.heads() * n.T);
        const auto of_q = [&](auto* data) { return side_by_side(data, n.T, n.NH, n.HS); };
        const auto of_k = [&](auto* data) { return side_by_side(data, n.T, heads, n.HS); };
        const Backward<T> arrays = {of_q(pq), of_k(pk), of_k(pv),      of_q(po),      of_q(pd),
                                    pl,       delta,    of_q(dq.data), of_k(dk.data), of_k(dv.data)};
        on.run([&](gpu::Stream s) {
            backward(VARIANT, arrays, n, s);
            if (!none) launch_sink_gradients<T>(dsinks, ps, pl, delta, n, stream_t(s));
        });
        return none ? tuple_of({dq, dk, dv}) : tuple_of({dq, dk, dv, dsinks});
    });
}

const Register registered[] = {
    {"grouped_attention_forward(q, k, v, n_head, window=0, softcap=0.0, sinks=None)",
     &grouped_attention_forward<Variant::flash>},
    {"grouped_attention_backward(dout, cache)", &grouped_attention_backward<Variant::flash>},
    {"grouped_attention_forward_1_naive(q, k, v, n_head, window=0, softcap=0.0, sinks=None)",
     &grouped_attention_forward<Variant::naive>},
    {"grouped_attention_backward_1_naive(dout, cache)", &grouped_attention_backward<Variant::naive>}};

}  // namespace
}  // namespace minillm::grouped_attention
