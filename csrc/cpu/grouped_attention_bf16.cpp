// grouped_attention.cpp in bfloat16: its products, and its cache, q, k, v and out in half the bytes.
//
// As in attention/bf16.cpp, q, k and v are rounded and everything is computed from the rounded numbers by the kernels of
// attention/pairs.cpp.
#include "cpu/attention/pairs.h"
#include "cpu/grouped_attention.h"

namespace minillm::grouped_attention_bf16 {

using namespace grouped_attention;

void forward_kernel(float* out, bf16* rounded, float* logsumexp, const bf16* q, const bf16* k, const bf16* v,
                    const Grouped& n, const HeadOptions<float>& options) {
#pragma omp parallel
    {
        PairForward head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH, g = h / n.group();
            attend_pairs(head, n.rows(out, n.NH, b, h), n.rows(rounded, n.NH, b, h), logsumexp + bh * n.T,
                         n.rows(q, n.NH, b, h), n.rows(k, n.NKV, b, g), n.rows(v, n.NKV, b, g), options.of_head(h));
        }
    }
}

void backward_kernel(float* dq, float* dk, float* dv, float* dsinks, const float* dout, const bf16* q, const bf16* k,
                     const bf16* v, const bf16* out, const float* logsumexp, const Grouped& n,
                     const HeadOptions<float>& options) {
#pragma omp parallel
    {
        PairBackward head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bg = 0; bg < n.B * n.NKV; bg++) {
            int64_t b = bg / n.NKV, g = bg % n.NKV;
            for (int64_t h = g * n.group(); h < (g + 1) * n.group(); h++) {
                const float* lse = logsumexp + (b * n.NH + h) * n.T;
                backward_pairs(head, {n.rows(dq, n.NH, b, h), n.rows(dk, n.NKV, b, g), n.rows(dv, n.NKV, b, g)},
                               n.rows(dout, n.NH, b, h),
                               {n.rows(q, n.NH, b, h), n.rows(k, n.NKV, b, g), n.rows(v, n.NKV, b, g)},
                               n.rows(out, n.NH, b, h), lse, h > g * n.group(), options.of_head(h));
                if (dsinks) dsinks[b * n.NH + h] = sink_gradient(lse, head.D, n.T, options.sinks[h]);
            }
        }
    }
}

const bf16* halves(const char* name, const Array& x, const Shape& shape) {
    return (const bf16*)input<uint16_t>(name, x, shape);
}

Tuple grouped_attention_forward_bf16(const Array& q, const Array& k, const Array& v, int64_t n_head, int64_t window,
                                     double softcap, const Object& sinks) {
    Grouped n = sizes_of(q, k, n_head);
    const float *pq = input<float>("q", q, q.shape), *pk = input<float>("k", k, k.shape),
                *pv = input<float>("v", v, k.shape);
    auto options = options_of<float>(window, sinks, softcap, n_head);
    auto out = fresh<float>(q.shape), logsumexp = fresh<float>({n.B, n.NH, n.T});
    auto rq = fresh<uint16_t>(q.shape), rk = fresh<uint16_t>(k.shape), rv = fresh<uint16_t>(k.shape),
         rounded_out = fresh<uint16_t>(q.shape);
    without_gil([&] {
        round_array((bf16*)rq.data, pq, q.size());
        round_array((bf16*)rk.data, pk, k.size());
        round_array((bf16*)rv.data, pv, k.size());
        forward_kernel(out, (bf16*)rounded_out.data, logsumexp, (bf16*)rq.data, (bf16*)rk.data, (bf16*)rv.data, n,
                       options);
    });
    Object cached_sinks = sinks.is_none() ? fresh<float>({0}) : sinks;
    return tuple_of({out, tuple_of({rq, rk, rv, n_head, window, cached_sinks, softcap, rounded_out, logsumexp})});
}

Tuple grouped_attention_backward_bf16(const Array& dout, const Tuple& cache) {
    Array q = cached(cache, 0), k = cached(cache, 1), v = cached(cache, 2), out = cached(cache, 7),
          logsumexp = cached(cache, 8);
    Grouped n = sizes_of(q, k, cached<int64_t>(cache, 3));
    auto options = cached_options<float>(cache, 4, n.NH);
    const float *pd = input<float>("dout", dout, q.shape),
                *pl = input<float>("cached logsumexp", logsumexp, {n.B, n.NH, n.T});
    const bf16 *pq = halves("cached q", q, q.shape), *pk = halves("cached k", k, k.shape),
               *pv = halves("cached v", v, k.shape), *po = halves("cached out", out, q.shape);
    auto dq = fresh<float>(q.shape), dk = fresh<float>(k.shape), dv = fresh<float>(k.shape),
         dsinks = fresh<float>({n.NH});
    std::vector<float> shares(options.sinks ? n.B * n.NH : 0);
    without_gil([&] {
        backward_kernel(dq, dk, dv, options.sinks ? shares.data() : nullptr, pd, pq, pk, pv, po, pl, n, options);
        if (options.sinks) sum_shares<float>(dsinks, shares.data(), n);
    });
    return options.sinks ? tuple_of({dq, dk, dv, dsinks}) : tuple_of({dq, dk, dv});
}

const Register registered[] = {{"grouped_attention_forward_bf16(q, k, v, n_head, window=0, softcap=0.0, sinks=None)",
                                &grouped_attention_forward_bf16},
                               {"grouped_attention_backward_bf16(dout, cache)", &grouped_attention_backward_bf16}};

}  // namespace minillm::grouped_attention_bf16
