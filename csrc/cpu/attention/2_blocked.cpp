// Variant 2: the same sums in tiles of BLOCK queries by BLOCK keys (Dao et al. 2022, arXiv 2205.14135), in plain loops.
//
// A tile of keys and values stays in L1 while BLOCK queries use it. A row's softmax is not known before
// its last tile, so it is kept running: top is the largest score so far, and when it grows by a new tile, the sum and
// the output so far are both multiplied by exp(old top - new top). What this step buys over step 1 is fewer trips to
// memory; the arithmetic is still one number at a time wherever the compiler finds no vector in it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/attention/pair.h"

namespace minillm::attention {

struct Blocked {
    static constexpr int64_t BLOCK = 64;

    // One query against keys [first, last): folds their scores into the running top, total and out.
    template <class T>
    static void forward_tile_row(T* out, T& top, T& total, const T* q, Rows<const T> k, Rows<const T> v, int64_t first,
                                 int64_t last, int64_t HS) {
        const T scale = 1 / std::sqrt(T(HS));
        T p[BLOCK], old = top;
        for (int64_t s = first; s < last; s++) {
            p[s - first] = scale * dot(q, k[s], HS);
            top = std::max(top, p[s - first]);
        }
        T shrink = std::exp(old - top);
        total *= shrink;
        for (int64_t i = 0; i < HS; i++) out[i] *= shrink;
        for (int64_t s = first; s < last; s++) {
            T weight = std::exp(p[s - first] - top);
            total += weight;
            for (int64_t i = 0; i < HS; i++) out[i] += weight * v[s][i];
        }
    }

    // Queries [begin, end) of one head, tile after tile of keys.
    template <class T>
    static void forward_block(Rows<T> out, T* logsumexp, Rows<const T> q, Rows<const T> k, Rows<const T> v,
                              int64_t begin, int64_t end, int64_t HS) {
        T top[BLOCK], total[BLOCK];
        for (int64_t t = begin; t < end; t++) {
            top[t - begin] = std::numeric_limits<T>::lowest();
            total[t - begin] = 0;
            std::fill_n(out[t], HS, T(0));
        }
        for (int64_t first = 0; first < end; first += BLOCK)
            for (int64_t t = std::max(begin, first); t < end; t++)
                forward_tile_row(out[t], top[t - begin], total[t - begin], q[t], k, v, first,
                                 std::min(first + BLOCK, t + 1), HS);
        for (int64_t t = begin; t < end; t++) {
            for (int64_t i = 0; i < HS; i++) out[t][i] /= total[t - begin];
            logsumexp[t] = top[t - begin] + std::log(total[t - begin]);
        }
    }

    template <class T>
    static void forward(T* out, T* logsumexp, const T* qkv, const Sizes& n) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            auto q = qkv_rows(qkv, n, b, h, 0), k = qkv_rows(qkv, n, b, h, 1), v = qkv_rows(qkv, n, b, h, 2);
            for (int64_t begin = 0; begin < n.T; begin += BLOCK)
                forward_block(out_rows(out, n, b, h), logsumexp + bh * n.T, q, k, v, begin,
                              std::min(begin + BLOCK, n.T), n.HS);
        }
    }

    // Query t against keys [first, last): as in step 1, of a tile.
    template <class T>
    static void backward_tile_row(T* dq, Rows<T> dk, Rows<T> dv, const T* dout, T D, T logsumexp, const T* q,
                                  Rows<const T> k, Rows<const T> v, int64_t first, int64_t last, int64_t HS) {
        const T scale = 1 / std::sqrt(T(HS));
        for (int64_t s = first; s < last; s++) {
            T p = std::exp(scale * dot(q, k[s], HS) - logsumexp);
            T dS = scale * p * (dot(dout, v[s], HS) - D);
            for (int64_t i = 0; i < HS; i++) dv[s][i] += p * dout[i];
            for (int64_t i = 0; i < HS; i++) dq[i] += dS * k[s][i];
            for (int64_t i = 0; i < HS; i++) dk[s][i] += dS * q[i];
        }
    }

    template <class T>
    static void backward_head(T* dqkv, const T* dout, const T* qkv, const T* out, const T* logsumexp, const Sizes& n,
                              int64_t b, int64_t h) {
        auto q = qkv_rows(qkv, n, b, h, 0), k = qkv_rows(qkv, n, b, h, 1), v = qkv_rows(qkv, n, b, h, 2);
        auto dq = qkv_rows(dqkv, n, b, h, 0), dk = qkv_rows(dqkv, n, b, h, 1), dv = qkv_rows(dqkv, n, b, h, 2);
        auto o = out_rows(out, n, b, h), d = out_rows(dout, n, b, h);
        std::vector<T> D(n.T);
        for (int64_t t = 0; t < n.T; t++) D[t] = dot(d[t], o[t], n.HS);
        for (int64_t first = 0; first < n.T; first += BLOCK)  // keys and values of a tile stay in L1
            for (int64_t t = first; t < n.T; t++)
                backward_tile_row(dq[t], dk, dv, d[t], D[t], logsumexp[t], q[t], k, v, first,
                                  std::min(first + BLOCK, t + 1), n.HS);
    }

    template <class T>
    static void backward(T* dqkv, const T* dout, const T* qkv, const T* out, const T* logsumexp, const Sizes& n) {
        std::fill_n(dqkv, n.B * n.T * 3 * n.C(), T(0));
#pragma omp parallel for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++)
            backward_head(dqkv, dout, qkv, out, logsumexp + bh * n.T, n, bh / n.NH, bh % n.NH);
    }
};

const Variant<Blocked> registered("_2_blocked");

}  // namespace minillm::attention
