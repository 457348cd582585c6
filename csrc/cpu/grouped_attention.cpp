// Attention in which groups of query heads share a head of keys and values. Formulas: minillm/ops/grouped_attention.py.
//
//   out = softmax(q k^T / sqrt(HS)) v           dk, dv: sums over the query heads of a group
//
// The kernels are attention/3_simd.cpp's, which take a head's rows wherever they lie, so nothing is repeated in memory.
// Forward: parallel over (sequence, query head). Backward: over (sequence, head of keys); the query heads of a group come
// one after the other and add to dk and dv in that order, so sums do not depend on threads.
#include "cpu/grouped_attention.h"

#include "cpu/attention/3_simd.h"

namespace minillm::grouped_attention {

template <class T>
void forward_kernel(T* out, T* logsumexp, const T* q, const T* k, const T* v, const Grouped& n,
                    const HeadOptions<T>& options) {
#pragma omp parallel
    {
        ForwardHead<T> head(n.T, n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH, g = h / n.group();
            attend<T, TILE_ROWS>(head, n.rows(out, n.NH, b, h), logsumexp + bh * n.T, n.rows(q, n.NH, b, h),
                                 n.rows(k, n.NKV, b, g), n.rows(v, n.NKV, b, g), n.T, n.T, nullptr, options.of_head(h));
        }
    }
}

// dsinks: (B, NH), each sequence's share, or null.
template <class T>
void backward_kernel(T* dq, T* dk, T* dv, T* dsinks, const T* dout, const T* q, const T* k, const T* v, const T* out,
                     const T* logsumexp, const Grouped& n, const HeadOptions<T>& options) {
#pragma omp parallel
    {
        BackwardHead<T> head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bg = 0; bg < n.B * n.NKV; bg++) {
            int64_t b = bg / n.NKV, g = bg % n.NKV;
            for (int64_t h = g * n.group(); h < (g + 1) * n.group(); h++) {
                backward_head<T>(
                    head, {n.rows(dq, n.NH, b, h), n.rows(dk, n.NKV, b, g), n.rows(dv, n.NKV, b, g)},
                    n.rows(dout, n.NH, b, h), {n.rows(q, n.NH, b, h), n.rows(k, n.NKV, b, g), n.rows(v, n.NKV, b, g)},
                    n.rows(out, n.NH, b, h), logsumexp + (b * n.NH + h) * n.T, h > g * n.group(), options.of_head(h));
                if (dsinks) dsinks[b * n.NH + h] = sink_gradient(head.logsumexp, head.D, n.T, options.sinks[h]);
            }
        }
    }
}

Tuple grouped_attention_forward(const Array& q, const Array& k, const Array& v, int64_t n_head, int64_t window,
                                double softcap, const Object& sinks) {
    return by_dtype("q", q, [&](auto zero) {
        using T = decltype(zero);
        Grouped n = sizes_of(q, k, n_head);
        const T *pq = input<T>("q", q, q.shape), *pk = input<T>("k", k, k.shape), *pv = input<T>("v", v, k.shape);
        auto options = options_of<T>(window, sinks, softcap, n_head);
        auto out = fresh<T>(q.shape), logsumexp = fresh<T>({n.B, n.NH, n.T});
        without_gil([&] { forward_kernel<T>(out, logsumexp, pq, pk, pv, n, options); });
        Object cached_sinks = sinks.is_none() ? fresh<T>({0}) : sinks;
        return tuple_of({out, tuple_of({q, k, v, n_head, window, cached_sinks, softcap, out, logsumexp})});
    });
}

Tuple grouped_attention_backward(const Array& dout, const Tuple& cache) {
    Array q = cached(cache, 0), k = cached(cache, 1), v = cached(cache, 2), out = cached(cache, 7),
          logsumexp = cached(cache, 8);
    return by_dtype("q", q, [&](auto zero) {
        using T = decltype(zero);
        Grouped n = sizes_of(q, k, cached<int64_t>(cache, 3));
        auto options = cached_options<T>(cache, 4, n.NH);
        const T *pd = input<T>("dout", dout, q.shape), *pq = input<T>("q", q, q.shape), *pk = input<T>("k", k, k.shape),
                *pv = input<T>("cached v", v, k.shape), *po = input<T>("cached out", out, q.shape),
                *pl = input<T>("cached logsumexp", logsumexp, {n.B, n.NH, n.T});
        auto dq = fresh<T>(q.shape), dk = fresh<T>(k.shape), dv = fresh<T>(k.shape), dsinks = fresh<T>({n.NH});
        std::vector<T> shares(options.sinks ? n.B * n.NH : 0);
        without_gil([&] {
            backward_kernel<T>(dq, dk, dv, options.sinks ? shares.data() : nullptr, pd, pq, pk, pv, po, pl, n, options);
            if (options.sinks) sum_shares<T>(dsinks, shares.data(), n);
        });
        return options.sinks ? tuple_of({dq, dk, dv, dsinks}) : tuple_of({dq, dk, dv});
    });
}

const Register registered[] = {
    {"grouped_attention_forward(q, k, v, n_head, window=0, softcap=0.0, sinks=None)", &grouped_attention_forward},
    {"grouped_attention_backward(dout, cache)", &grouped_attention_backward}};

}  // namespace minillm::grouped_attention
