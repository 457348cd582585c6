// Variant 1: the definition, row by row. Formulas: minillm/ops/attention.py.
//
// Three loops a row: scores, softmax, weighted sum of values; one row of T scores is all that is kept. Every key and
// value is fetched from memory again for every query, and each dot product is one chain of additions: the reader's version.
#include <algorithm>
#include <cmath>

#include "cpu/attention/pair.h"

namespace minillm::attention {

struct Naive {
    template <class T>
    static void forward_row(T* out, T* logsumexp, const T* q, Rows<const T> k, Rows<const T> v, T* p, int64_t t,
                            int64_t HS) {
        const T scale = 1 / std::sqrt(T(HS));
        T top = -INFINITY, total = 0;
        for (int64_t s = 0; s <= t; s++) {
            p[s] = scale * dot(q, k[s], HS);
            top = std::max(top, p[s]);
        }
        for (int64_t s = 0; s <= t; s++) {
            p[s] = std::exp(p[s] - top);
            total += p[s];
        }
        for (int64_t i = 0; i < HS; i++) out[i] = 0;
        for (int64_t s = 0; s <= t; s++)
            for (int64_t i = 0; i < HS; i++) out[i] += p[s] * v[s][i];
        for (int64_t i = 0; i < HS; i++) out[i] /= total;
        *logsumexp = top + std::log(total);
    }

    template <class T>
    static void forward(T* out, T* logsumexp, const T* qkv, const Sizes& n) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            auto q = qkv_rows(qkv, n, b, h, 0), k = qkv_rows(qkv, n, b, h, 1), v = qkv_rows(qkv, n, b, h, 2);
            auto o = out_rows(out, n, b, h);
            std::vector<T> p(n.T);
            for (int64_t t = 0; t < n.T; t++)
                forward_row(o[t], logsumexp + bh * n.T + t, q[t], k, v, p.data(), t, n.HS);
        }
    }

    // The part of query t: adds to dq[t], and to dk[s] and dv[s] of every s <= t.
    template <class T>
    static void backward_row(Rows<T> dq, Rows<T> dk, Rows<T> dv, const T* dout, const T* out, T logsumexp, const T* q,
                             Rows<const T> k, Rows<const T> v, int64_t t, int64_t HS) {
        const T scale = 1 / std::sqrt(T(HS)), D = dot(dout, out, HS);
        for (int64_t s = 0; s <= t; s++) {
            T p = std::exp(scale * dot(q, k[s], HS) - logsumexp);
            T dS = scale * p * (dot(dout, v[s], HS) - D);
            for (int64_t i = 0; i < HS; i++) {
                dv[s][i] += p * dout[i];
                dq[t][i] += dS * k[s][i];
                dk[s][i] += dS * q[i];
            }
        }
    }

    template <class T>
    static void backward(T* dqkv, const T* dout, const T* qkv, const T* out, const T* logsumexp, const Sizes& n) {
        std::fill_n(dqkv, n.B * n.T * 3 * n.C(), T(0));
#pragma omp parallel for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            auto q = qkv_rows(qkv, n, b, h, 0), k = qkv_rows(qkv, n, b, h, 1), v = qkv_rows(qkv, n, b, h, 2);
            auto dq = qkv_rows(dqkv, n, b, h, 0), dk = qkv_rows(dqkv, n, b, h, 1), dv = qkv_rows(dqkv, n, b, h, 2);
            auto o = out_rows(out, n, b, h), d = out_rows(dout, n, b, h);
            for (int64_t t = 0; t < n.T; t++)
                backward_row(dq, dk, dv, d[t], o[t], logsumexp[bh * n.T + t], q[t], k, v, t, n.HS);
        }
    }
};

const Variant<Naive> registered("_1_naive");

}  // namespace minillm::attention
