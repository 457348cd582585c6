// What grouped_attention.cpp and grouped_attention_bf16.cpp share: the sizes, and the gradient of the sinks.
#pragma once

#include <cmath>

#include "cpu/attention/3_simd.h"
#include "cpu/attention/options.h"
#include "python/register.h"

namespace minillm::grouped_attention {

using namespace attention;

// The sizes, and where a head lies in (B, T, heads * HS).
struct Grouped {
    int64_t B, T, NH, NKV, HS;
    int64_t group() const { return NH / NKV; }
    template <class X>
    Rows<X> rows(X* data, int64_t heads, int64_t b, int64_t h) const {
        return {data + b * T * heads * HS + h * HS, heads * HS};
    }
};

inline Grouped sizes_of(const Array& q, const Array& k, int64_t n_head) {
    check_shape("q", q, {ANY, ANY, ANY});
    check_shape("k", k, {q.shape[0], q.shape[1], ANY});
    int64_t width = q.shape[2];
    if (n_head < 1 || n_head > width || width % n_head)
        fail("q must have a last axis of n_head * HS: got ", width, " with n_head=", n_head);
    int64_t HS = width / n_head, heads = k.shape[2] / HS;
    if (k.shape[2] % HS || !heads || n_head % heads)
        fail("k must have a last axis of heads of ", HS, " numbers, whose count divides n_head=", n_head, ": got ",
             k.shape[2]);
    return {q.shape[0], q.shape[1], n_head, heads, HS};
}

// dsink = -sum over t of exp(sink - logsumexp[t]) * D[t], of the head whose backward has just run.
template <class T>
T sink_gradient(const T* logsumexp, const T* D, int64_t n_query, T sink) {
    T total = 0;
    for (int64_t t = 0; t < n_query; t++) total -= std::exp(sink - logsumexp[t]) * D[t];
    return total;
}

// out (NH) = the sum of shares (B, NH) over the sequences.
template <class T>
void sum_shares(T* out, const T* shares, const Grouped& n) {
    std::fill_n(out, n.NH, T(0));
    for (int64_t b = 0; b < n.B; b++)
        for (int64_t h = 0; h < n.NH; h++) out[h] += shares[b * n.NH + h];
}

}  // namespace minillm::grouped_attention
