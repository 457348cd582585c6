// Variant 3: the running softmax of attention_2_blocked.h on packed tiles, in vectors.
//
// Forward, for one head: for each block of BLOCK queries, for each block of BLOCK keys up to the diagonal,
//     S = Q K^T (keys across lanes, so K is packed transposed)     P = exp(S - top), running top and sum of each row
//     O = O * exp(old top - top) + P V
// Cached: qkv, out and the logsumexp of each row. Backward, for one head: for each block of keys, for each block of
// queries from the diagonal on, with D = rowsum(dO * O),
//     P = exp(Q K^T - logsumexp)     dS = P * (dO V^T - D)
//     dV += P^T dO                   dK += dS^T Q              dQ += dS K
// Q is packed already multiplied by 1 / sqrt(HS). Parallel over (sequence, head).
//
// Order of sums. Key blocks start at multiples of BLOCK, whatever the queries; a row's scores are chains over d, its
// sum and output chains over s, block by block, which involve that row alone, and a chain's bits do not depend on the
// tile that computes it (tile.h). So row t does not depend on T, the batch or the threads, and a decoding step repeats
// the forward's bits. The mask is structural: scores after the diagonal are replaced, not added to, before anything
// reads them, and values after it are not multiplied at all: a later NaN cannot reach an earlier row.
#include "cpu/attention/3_simd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/attention/pair.h"
#include "cpu/simd/math.h"

namespace minillm::attention {

// Copies rows [begin, end), times `scale`, and pads them with zeros to `width` columns and `rows` rows.
template <class T>
void pack_rows(T* to, int64_t width, Rows<const T> from, int64_t begin, int64_t end, int64_t rows, int64_t HS,
               T scale = 1) {
    constexpr int64_t W = WIDTH<T>;
    for (int64_t t = begin; t < end; t++, to += width) {
        int64_t i = 0;
        for (; i + W <= HS; i += W) store(to + i, load(from[t] + i) * scale);
        if (i < HS) store(to + i, load_part(from[t] + i, HS - i) * scale);
    }
    std::fill_n(to, (rows - (end - begin)) * width, T(0));
}

// to (HS, BLOCK): the same rows, transposed, and zeros where they have ended.
template <class T>
void pack_transposed(T* to, Rows<const T> from, int64_t begin, int64_t end, int64_t HS) {
    constexpr int64_t W = WIDTH<T>;
    for (int64_t t = 0; t < BLOCK; t += W)
        for (int64_t d = 0; d < HS; d += W) {
            Vec<T> v[W];
            load_transposed<T>(v, from[begin + t] + d, from.stride, end - begin - t, HS - d);
            for (int64_t i = 0; i < std::min(W, HS - d); i++) store(to + (d + i) * BLOCK + t, v[i]);
        }
}

template <class T>
void QueryBlock<T>::start(Rows<const T> queries, int64_t begin, int64_t end, int64_t rows, int64_t HS,
                          const Options<T>& options) {
    pack_rows(q, width, queries, begin, end, rows, HS, 1 / std::sqrt(T(HS)));
    std::fill_n(O, rows * width, T(0));
    std::fill_n(sums, rows * WIDTH<T>, T(0));
    std::fill_n(top, rows, std::max(options.sink, std::numeric_limits<T>::lowest()));
    if (options.has_sink())                                                // the first column that a row meets
        for (int64_t r = 0; r < rows; r++) sums[r * WIDTH<T>] = 1;
}

// S = q K^T. `diagonal` is the last visible column of row 0; rows go R at a time, each lot as far as its last row sees.
template <class T, int R>
void scores(QueryBlock<T>& block, const T* keys, int64_t rows, int64_t diagonal, int64_t HS) {
    for (int64_t r = 0; r < rows; r += R)
        tile_matmul<T, R>(block.S + r * BLOCK, BLOCK, block.q + r * block.width, block.width, keys, BLOCK, 0, HS,
                          vectors_for<T>(visible(diagonal + r + R - 1)), false);
}

// Reads a number of each line of rows [t, end) of k, in order of memory, and asks for rows AHEAD of them; after the last row
// of all, n_key, comes `next`. The transposition below reads a line of each of WIDTH rows, then the next line of each: no
// prefetcher follows that.
template <class T>
void touch_rows(Rows<const T> k, int64_t t, int64_t end, int64_t n_key, int64_t HS, const T* next) {
    constexpr int64_t AHEAD = 2 * WIDTH<T>;
    for (int64_t i = t; i < end; i++) {
        const T* ahead = i + AHEAD < n_key ? k[i + AHEAD] : next + (i + AHEAD - n_key) * k.stride;
        for (int64_t d = 0; d < HS; d += 64 / sizeof(T)) {
            __builtin_prefetch(ahead + d);
            (void)*(const volatile char*)(k[i] + d);
        }
    }
}

// The same for one query, rows [begin, n_key) of k, which nobody needs again: transposed in registers, not packed. It is
// memory-bandwidth bound.
template <class T>
void scores_of_one(QueryBlock<T>& block, Rows<const T> k, int64_t begin, int64_t n_key, int64_t HS, const T* next) {
    constexpr int64_t W = WIDTH<T>;
    for (int64_t t = begin; t < std::min(n_key, begin + BLOCK); t += W) {
        Vec<T> total{};
        touch_rows(k, t, std::min(t + W, n_key), n_key, HS, next);
        for (int64_t d = 0; d < HS; d += W) {
            Vec<T> columns[W];
            load_transposed<T>(columns, k[t] + d, k.stride, n_key - t, HS - d);
            for (int64_t i = 0; i < std::min(W, HS - d); i++) total += block.q[d + i] * columns[i];
        }
        store(block.S + t - begin, total);
    }
}

// S = cap * tanh(S / cap), of as many columns as a row sees.
template <class T>
void cap_scores(QueryBlock<T>& block, int64_t rows, int64_t diagonal, T cap) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < visible(diagonal + r); j += WIDTH<T>) {
            T* S = block.S + r * BLOCK + j;
            store(S, cap * vtanh<T>(load(S) / cap));
        }
}

// S becomes P; every row's top, sums and shrink are brought up to date.
template <class T>
void running_softmax(QueryBlock<T>& block, int64_t rows, int64_t diagonal, int64_t window) {
    constexpr int64_t W = WIDTH<T>;
    for (int64_t r = 0; r < rows; r++) {
        T* row = block.S + r * BLOCK;
        int64_t columns = visible(diagonal + r);
        Vec<T> best = splat<T>(block.top[r]);
        for (int64_t j = 0; j < columns; j += W) {
            if (columns < j + W) store(row + j, causal<T>(load(row + j), j, diagonal + r, -INFINITY));
            if (diagonal + r - window >= j)
                store(row + j, within<T>(load(row + j), j, diagonal + r - window, -INFINITY));
            best = vmax<T>(load(row + j), best);
        }
        T top = largest<T>(best);
        block.shrink[r] = block.top[r] - top;
        block.top[r] = top;
    }
    for (int64_t r = 0; r < rows; r += W) store(block.shrink + r, vexp<T>(load(block.shrink + r)));
    for (int64_t r = 0; r < rows; r++) {
        T* row = block.S + r * BLOCK;
        Vec<T> sums = load(block.sums + r * W) * block.shrink[r];
        for (int64_t j = 0; j < visible(diagonal + r); j += W) {
            Vec<T> p = vexp<T>(load(row + j) - block.top[r]);
            store(row + j, p);
            sums += p;
        }
        store(block.sums + r * W, sums);
    }
}

// O = O * shrink + P V. Rows go R at a time over the columns that all R see; the last few are added row by row, so that
// no row meets a value it may not see.
template <class T, int R>
void add_values(QueryBlock<T>& block, Rows<const T> values, int64_t rows, int64_t diagonal) {
    constexpr int64_t W = WIDTH<T>;
    int64_t width = block.width;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i += W)
            store(block.O + r * width + i, load(block.O + r * width + i) * block.shrink[r]);
    for (int64_t r = 0; r < rows; r += R) {
        int64_t common = visible(diagonal + r);
        tile_matmul<T, R>(block.O + r * width, width, block.S + r * BLOCK, BLOCK, values.data, values.stride, 0, common,
                          width / W, true);
        for (int64_t row = r + 1; row < r + R; row++)
            for (int64_t s = common; s < visible(diagonal + row); s++)
                for (int64_t i = 0; i < width; i += W)
                    store(block.O + row * width + i,
                          load(block.O + row * width + i) + block.S[row * BLOCK + s] * load(values[s] + i));
    }
}

template <class T, int R>
void attend(ForwardHead<T>& head, Rows<T> out, T* logsumexp, Rows<const T> q, Rows<const T> k, Rows<const T> v,
            int64_t n_query, int64_t n_key, const T* next, const Options<T>& options) {
    auto& [HS, width, slots, memory, all_keys, all_values, block] = head;
    const bool in_place = R == 1 && HS == width;                           // one query reads them once: no packing
    int64_t n_packed = 0;                                                  // blocks of keys and values packed so far
    for (int64_t begin = 0; begin < n_query; begin += BLOCK) {
        int64_t end = std::min(begin + BLOCK, n_query), rows = round_up(end - begin, R);
        int64_t first = n_key - n_query + begin;                           // position of row 0
        block.start(q, begin, end, rows, HS, options);
        for (int64_t j = std::max<int64_t>(0, first - options.window + 1) / BLOCK;
             j <= (first + end - begin - 1) / BLOCK; j++) {
            T *keys = all_keys + j % slots * BLOCK * HS, *values = all_values + j % slots * BLOCK * width;
            if (j >= n_packed) {
                if (R > 1) pack_transposed(keys, k, j * BLOCK, n_key, HS);
                if (!in_place) pack_rows(values, width, v, j * BLOCK, std::min((j + 1) * BLOCK, n_key), BLOCK, HS);
                n_packed = j + 1;
            }
            Rows<const T> packed{values, width}, there{v[j * BLOCK], v.stride};
            if (R == 1) scores_of_one(block, k, j * BLOCK, n_key, HS, next);
            else scores<T, R>(block, keys, rows, first - j * BLOCK, HS);
            if (options.cap) cap_scores(block, rows, first - j * BLOCK, options.cap);
            running_softmax(block, rows, first - j * BLOCK, options.window);
            add_values<T, R>(block, in_place ? there : packed, rows, first - j * BLOCK);
        }
        for (int64_t t = begin; t < end; t++) {
            T total = sum<T>(load(block.sums + (t - begin) * WIDTH<T>));
            for (int64_t i = 0; i < HS; i++) out[t][i] = block.O[(t - begin) * width + i] / total;
            if (logsumexp) logsumexp[t] = block.top[t - begin] + std::log(total);
        }
    }
}

template <class T>
void start_queries(BackwardHead<T>& head, Rows<const T> q, Rows<const T> dout, Rows<const T> out, const T* logsumexp) {
    pack_rows(head.q, head.width, q, 0, head.T_, head.padded, head.HS, 1 / std::sqrt(T(head.HS)));
    pack_rows(head.dout, head.width, dout, 0, head.T_, head.padded, head.HS);
    std::fill_n(head.dq, head.padded * head.width, T(0));
    for (int64_t t = 0; t < head.padded; t++) {
        head.D[t] = t < head.T_ ? dot(dout[t], out[t], head.HS) : 0;
        head.logsumexp[t] = t < head.T_ ? logsumexp[t] : INFINITY;
    }
}

// P and dS of the queries from t on against the packed keys, the first of which stands at s <= t.
template <class T>
void probabilities(BackwardHead<T>& head, int64_t t, int64_t s, const Options<T>& options) {
    constexpr int64_t W = WIDTH<T>;
    const int64_t window = options.window;
    const T cap = options.cap, *q = head.q + t * head.width, *dout = head.dout + t * head.width;
    for (int64_t r = 0; r < BLOCK; r += TILE_ROWS) {
        int64_t vectors = vectors_for<T>(visible(t + r + TILE_ROWS - 1 - s));
        tile_matmul<T, TILE_ROWS>(head.P + r * BLOCK, BLOCK, q + r * head.width, head.width, head.keys, BLOCK, 0,
                                  head.HS, vectors, false);
        tile_matmul<T, TILE_ROWS>(head.dS + r * BLOCK, BLOCK, dout + r * head.width, head.width, head.values, BLOCK, 0,
                                  head.HS, vectors, false);
    }
    for (int64_t r = 0; r < BLOCK; r++) {
        T *P = head.P + r * BLOCK, *dS = head.dS + r * BLOCK;
        int64_t last = t + r - s;
        for (int64_t j = 0; j < BLOCK; j += W) {
            if (last < j) {
                store(P + j, Vec<T>{}), store(dS + j, Vec<T>{});
                continue;
            }
            Vec<T> score = load(P + j), slope = splat<T>(1);
            if (cap) {
                Vec<T> u = vtanh<T>(score / cap);
                score = cap * u, slope -= u * u;
            }
            Vec<T> p = vexp<T>(score - head.logsumexp[t + r]), ds = p * (load(dS + j) - head.D[t + r]) * slope;
            if (last < j + W - 1) p = causal<T>(p, j, last, 0), ds = causal<T>(ds, j, last, 0);
            if (last - window >= j) p = within<T>(p, j, last - window, 0), ds = within<T>(ds, j, last - window, 0);
            store(P + j, p), store(dS + j, ds);
        }
    }
}

// dV += P^T dO, dK += dS^T Q, dQ += dS K for one tile; P and dS are 0 after the diagonal, and whole zeros are skipped.
template <class T>
void add_gradients(BackwardHead<T>& head, int64_t t, int64_t s) {
    const int64_t width = head.width, vectors = width / WIDTH<T>;
    for (int64_t r = 0; r < BLOCK; r += TILE_ROWS) {
        int64_t first = std::max<int64_t>(0, s + r - t);                 // the first query that sees key r
        tile_matmul<T, TILE_ROWS, true>(head.dv + r * width, width, head.P + r, BLOCK, head.dout + t * width, width,
                                        first, BLOCK, vectors, true);
        tile_matmul<T, TILE_ROWS, true>(head.dk + r * width, width, head.dS + r, BLOCK, head.q + t * width, width,
                                        first, BLOCK, vectors, true);
        tile_matmul<T, TILE_ROWS>(head.dq + (t + r) * width, width, head.dS + r * BLOCK, BLOCK, head.k, width, 0,
                                  visible(t + r + TILE_ROWS - 1 - s), vectors, true);
    }
}

// to = from * scale, or += with `add`.
template <class T>
void unpack_rows(Rows<T> to, const T* from, int64_t width, int64_t begin, int64_t end, int64_t HS, bool add,
                 T scale = 1) {
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < HS; i++) {
            T x = from[(t - begin) * width + i] * scale;
            to[t][i] = add ? to[t][i] + x : x;
        }
}

template <class T>
void backward_head(BackwardHead<T>& head, const HeadRows<T>& d, Rows<const T> dout, const HeadRows<const T>& x,
                   Rows<const T> out, const T* logsumexp, bool add, const Options<T>& options) {
    int64_t HS = head.HS;
    start_queries(head, x.q, dout, out, logsumexp);
    for (int64_t s = 0; s < head.T_; s += BLOCK) {
        int64_t end = std::min(s + BLOCK, head.T_);
        pack_rows(head.k, head.width, x.k, s, end, BLOCK, HS);
        pack_transposed(head.keys, x.k, s, head.T_, HS);
        pack_transposed(head.values, x.v, s, head.T_, HS);
        std::fill_n(head.dk, BLOCK * head.width, T(0));
        std::fill_n(head.dv, BLOCK * head.width, T(0));
        for (int64_t t = s; t < head.T_ && t - options.window < end; t += BLOCK) {
            probabilities(head, t, s, options);
            add_gradients(head, t, s);
        }
        unpack_rows(d.k, head.dk, head.width, s, end, HS, add);
        unpack_rows(d.v, head.dv, head.width, s, end, HS, add);
    }
    unpack_rows(d.q, head.dq, head.width, 0, head.T_, HS, false, 1 / std::sqrt(T(HS)));
}

struct Simd {
    template <class T>
    static void forward(T* out, T* logsumexp, const T* qkv, const Sizes& n) {
#pragma omp parallel
        {
            ForwardHead<T> head(n.T, n.T, n.HS);
#pragma omp for schedule(dynamic)
            for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
                int64_t b = bh / n.NH, h = bh % n.NH;
                attend<T, TILE_ROWS>(head, out_rows(out, n, b, h), logsumexp + bh * n.T, qkv_rows(qkv, n, b, h, 0),
                                     qkv_rows(qkv, n, b, h, 1), qkv_rows(qkv, n, b, h, 2), n.T, n.T);
            }
        }
    }

    template <class T>
    static void backward(T* dqkv, const T* dout, const T* qkv, const T* out, const T* logsumexp, const Sizes& n) {
#pragma omp parallel
        {
            BackwardHead<T> head(n.T, n.HS);
#pragma omp for schedule(dynamic)
            for (int64_t bh = 0; bh < n.B * n.NH; bh++)
                backward_head<T>(head, qkv_head(dqkv, n, bh), out_rows(dout, n, bh / n.NH, bh % n.NH),
                                 qkv_head(qkv, n, bh), out_rows(out, n, bh / n.NH, bh % n.NH), logsumexp + bh * n.T);
        }
    }
};

const Variant<Simd> registered("_3_simd"), usual("");

// What other files use.
#define ATTEND(T, R)                                                                                               \
    template void attend<T, R>(ForwardHead<T>&, Rows<T>, T*, Rows<const T>, Rows<const T>, Rows<const T>, int64_t, \
                               int64_t, const T*, const Options<T>&)
ATTEND(float, 1);
ATTEND(float, TILE_ROWS);
ATTEND(double, 1);
ATTEND(double, TILE_ROWS);
#define BACKWARD_HEAD(T)                                                                                       \
    template void backward_head(BackwardHead<T>&, const HeadRows<T>&, Rows<const T>, const HeadRows<const T>&, \
                                Rows<const T>, const T*, bool, const Options<T>&)
BACKWARD_HEAD(float);
BACKWARD_HEAD(double);

}  // namespace minillm::attention
