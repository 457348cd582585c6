// Attention with products in bfloat16, of one head: the running softmax of 3_simd.cpp on pairs (gemm/bf16.h).
//
// q, k and v are bfloat16 already, and dout is rounded. Scores, their softmax and all sums are float; what is multiplied once more,
// P and dS, is rounded for that. Forward, for each block of BLOCK queries, for each block of BLOCK keys up to the diagonal,
//     S = Q K^T      P = exp(scale (S - top)), running top and sum of each row      O = O * exp(old top - top) + P V
// Backward, for each block of keys, for each block of queries from the diagonal on, transposed, so that the rows of P^T and dS^T are
// pairs of queries as they stand, and D[t] = dO[t] . out[t] and the logsumexp are vectors,
//     P^T = exp(scale K Q^T - logsumexp)        dS^T = P^T * (V dO^T - D)
//     dV += P^T dO                   dK += scale dS^T Q              dQ += scale dS K
// Powers are of 2: exp(scale (S - top)) = 2^(scale log2(e) (S - top)), 13 operations for 16 numbers, where the products of a block that
// an exponential belongs to are 8 (HS = 64).
//
// Order of sums and mask: as in 3_simd.cpp. Of a pair of keys of which a row sees the first only, the second is not multiplied.
#include "cpu/attention/pairs.h"

#include <cmath>
#include <limits>

#include "cpu/gemm/pair_tile.h"
#include "cpu/simd/math.h"

namespace minillm::attention {

constexpr int64_t W = WIDTH<float>;
constexpr float LOG2_E = 1.44269504088896341f;

// The row that is needed AHEAD rows from now, to be read or written: rows of a head are pages apart, where the machine's own
// prefetching stops.
constexpr int64_t AHEAD = 8;
template <class T>
inline void fetch(Rows<T> x, int64_t t, int64_t HS) {
    constexpr int FOR_WRITING = !std::is_const_v<T>;
    for (int64_t i = 0; i < HS; i += 64 / sizeof(T)) __builtin_prefetch(x[t + AHEAD] + i, FOR_WRITING);
}

// Rows [begin, begin + BLOCK) of x as the columns of a right-hand factor, sums over HS; or as its rows, sums over them.
void pack_across(Pair* to, Rows<const bf16> x, int64_t begin, const PairSizes& n) {
    int64_t rows = std::min(BLOCK, n.T - begin);
    if (rows < BLOCK) std::fill_n(to, n.across(), 0);
    pack_panels(to, {x[begin], x.stride, true}, rows, n.HS, n.depth);
}
void pack_along(Pair* to, Rows<const bf16> x, int64_t begin, const PairSizes& n) {
    pack_panels(to, {x[begin], x.stride}, n.HS, std::min(BLOCK, n.T - begin), BLOCK / 2);
}

// The same rows as a left-hand factor (BLOCK, depth).
void copy_rows(Pair* to, Rows<const bf16> x, int64_t begin, const PairSizes& n) {
    if (n.T - begin < BLOCK || n.HS % 2) std::fill_n(to, BLOCK * n.depth, 0);
    for (int64_t t = begin; t < std::min(begin + BLOCK, n.T); t++, to += n.depth) {
        int64_t i = 0;
        fetch(x, t, n.HS);
        for (; i + W <= n.HS; i += W) store_part((bf16*)to + i, load_part(x[t] + i, W), W);
        if (i < n.HS) std::memcpy(to + i / 2, x[t] + i, 2 * (n.HS - i));
    }
}

// Of a row of HS numbers: n from p on, in the usual case a whole vector, which is one instruction.
inline Vec<float> load_some(const float* p, int64_t n) { return n == W ? load(p) : load_part(p, n); }
inline void store_some(float* p, Vec<float> v, int64_t n) {
    if (n == W) store(p, v);
    else store_part(p, v, n);
}

// S = Q K^T. `diagonal` is the last visible column of row 0.
template <bool INSTRUCTION>
void scores(PairForward& head, const Pair* keys, int64_t rows, int64_t diagonal) {
    for (int64_t r = 0; r < rows; r += TILE_ROWS)
        pair_matmul<INSTRUCTION, TILE_ROWS>(
            head.S + r * BLOCK, BLOCK, head.q + r * head.n.depth, head.n.depth, {keys, head.n.depth}, 0,
            vectors_for<float>(visible(diagonal + r + TILE_ROWS - 1)), 0, head.n.depth, false);
}

// What a row sees: columns up to `last` that are after `before`.
struct Sight {
    int64_t last, before;
    bool whole(int64_t j) const { return j + W - 1 <= last && before < j; }
    Vec<float> masked(Vec<float> v, int64_t j, float hidden) const {
        if (whole(j)) return v;
        if (j + W - 1 > last) v = causal<float>(v, j, last, hidden);
        return before >= j ? within<float>(v, j, before, hidden) : v;
    }
};

// A row of scores becomes a row of P, in pairs. power: what scores are multiplied by, to be powers of 2.
template <bool INSTRUCTION>
void softmax_row(PairForward& head, int64_t r, const Sight& sight, float power) {
    const float* row = head.S + r * BLOCK;
    char* P = (char*)(head.P + r * BLOCK / 2);
    const int64_t columns = visible(sight.last);
    Vec<float> sums = load(head.sums + r * W) * head.shrink[r];
    auto p = [&](int64_t j) {
        Vec<float> v = sight.masked(vexp2_roughly((load(row + j) - head.top[r]) * power), j, 0);
        sums += v;
        return v;
    };
    for (int64_t j = 0; j < columns; j += 2 * W) {
        Vec<float> first = p(j), second = j + W < columns ? p(j + W) : Vec<float>{};
        TwoHalves both = rounded_halves<INSTRUCTION>(first, second);
        std::memcpy(P + 2 * j, &both, sizeof both);
    }
    store(head.sums + r * W, sums);
}

// S becomes P; every row's top, sums, shrink and output are brought up to date.
template <bool INSTRUCTION>
void running_softmax(PairForward& head, int64_t rows, int64_t diagonal, float power, int64_t window) {
    auto sight = [&](int64_t r) { return Sight{diagonal + r, diagonal + r - window}; };
    for (int64_t r = 0; r < rows; r++) {
        Vec<float> best = splat<float>(-INFINITY);
        for (int64_t j = 0; j < visible(diagonal + r); j += W)
            best = vmax<float>(sight(r).masked(load(head.S + r * BLOCK + j), j, -INFINITY), best);
        float top = std::max(head.top[r], largest<float>(best));
        head.shrink[r] = head.top[r] - top;
        head.top[r] = top;
    }
    for (int64_t r = 0; r < rows; r += W) store(head.shrink + r, vexp2_roughly(load(head.shrink + r) * power));
    for (int64_t r = 0; r < rows; r++) {
        softmax_row<INSTRUCTION>(head, r, sight(r), power);
        float* O = head.O + r * head.n.width;
        if (head.shrink[r] != 1)
            for (int64_t i = 0; i < head.n.width; i += W) store(O + i, load(O + i) * head.shrink[r]);
    }
}

// S = cap * tanh(scale S / cap), of as many columns as a row sees.
void cap_scores(PairForward& head, int64_t rows, int64_t diagonal, float scale, float cap) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < visible(diagonal + r); j += W) {
            float* S = head.S + r * BLOCK + j;
            store(S, cap * vtanh<float>(load(S) * scale / cap));
        }
}

// O += P V. Rows go TILE_ROWS at a time over the pairs that all of them see, then each alone over what is left to it.
template <bool INSTRUCTION>
void add_values(PairForward& head, const Pair* values, int64_t rows, int64_t diagonal) {
    const int64_t width = head.n.width, vectors = width / W;
    const Panels V{values, BLOCK / 2};
    for (int64_t r = 0; r < rows; r += TILE_ROWS) {
        int64_t common = visible(diagonal + r) / 2;
        pair_matmul<INSTRUCTION, TILE_ROWS>(head.O + r * width, width, head.P + r * BLOCK / 2, BLOCK / 2, V, 0, vectors,
                                            0, common, true);
        for (int64_t row = r; row < r + TILE_ROWS; row++) {
            int64_t seen = visible(diagonal + row);
            float* O = head.O + row * width;
            const Pair* P = head.P + row * BLOCK / 2;
            if (seen / 2 > common)
                pair_matmul<INSTRUCTION, 1>(O, width, P, BLOCK / 2, V, 0, vectors, common, seen / 2, true);
            for (int64_t j = 0; seen % 2 && j < vectors; j++)
                store(O + j * W, load(O + j * W) + lower(splat(P[seen / 2])) * lower(load(V.vector(j) + seen / 2 * W)));
        }
    }
}

// unit: what scores are multiplied by, to be logits.
void start(PairForward& head, float sink, float unit) {
    std::fill_n(head.O, BLOCK * head.n.width, 0.0f);
    std::fill_n(head.sums, BLOCK * W, 0.0f);
    std::fill_n(head.top, BLOCK, std::max(sink / unit, std::numeric_limits<float>::lowest()));
}

void finish(PairForward& head, Rows<float> out, Rows<bf16> rounded, float* logsumexp, int64_t begin, int64_t end,
            float unit) {
    for (int64_t t = begin; t < end; t++) {
        fetch(out, t, head.n.HS), fetch(rounded, t, head.n.HS);
        const float* O = head.O + (t - begin) * head.n.width;
        float total = sum<float>(load(head.sums + (t - begin) * W)), share = 1 / total;
        for (int64_t i = 0; i < head.n.HS; i += W) {
            int64_t n = std::min(W, head.n.HS - i);
            Vec<float> v = load(O + i) * share;
            store_some(out[t] + i, v, n);
            store_part(rounded[t] + i, to_bf16(v), n);
        }
        logsumexp[t] = head.top[t - begin] * unit + std::log(total);
    }
}

template <bool INSTRUCTION>
void attend_by(PairForward& head, Rows<float> out, Rows<bf16> rounded, float* logsumexp, Rows<const bf16> q,
               Rows<const bf16> k, Rows<const bf16> v, const Options<float>& options) {
    const PairSizes& n = head.n;
    const float scale = 1 / std::sqrt(float(n.HS)), unit = options.cap ? 1 : scale;
    for (int64_t j = 0; j < n.blocks; j++) {
        pack_across(head.keys + j * n.across(), k, j * BLOCK, n);
        pack_along(head.values + j * n.along(), v, j * BLOCK, n);
    }
    for (int64_t begin = 0; begin < n.T; begin += BLOCK) {
        int64_t end = std::min(begin + BLOCK, n.T), rows = round_up(end - begin, TILE_ROWS);
        copy_rows(head.q, q, begin, n);
        start(head, options.sink, unit);
        for (int64_t r = 0; options.has_sink() && r < rows; r++) head.sums[r * W] = 1;
        for (int64_t j = std::max<int64_t>(0, begin - options.window + 1) / BLOCK; j * BLOCK < end; j++) {
            int64_t diagonal = begin - j * BLOCK;
            scores<INSTRUCTION>(head, head.keys + j * n.across(), rows, diagonal);
            if (options.cap) cap_scores(head, rows, diagonal, scale, options.cap);
            running_softmax<INSTRUCTION>(head, rows, diagonal, LOG2_E * unit, options.window);
            add_values<INSTRUCTION>(head, head.values + j * n.along(), rows, diagonal);
        }
        finish(head, out, rounded, logsumexp, begin, end, unit);
    }
}

// ---- backward ----

void start_queries(PairBackward& head, Rows<const bf16> q, Rows<const float> dout, Rows<const bf16> out,
                   const float* logsumexp) {
    const PairSizes& n = head.n;
    for (int64_t t = 0; t < n.T; t++) {
        Vec<float> D{};
        fetch(dout, t, n.HS), fetch(out, t, n.HS);
        for (int64_t i = 0; i < n.HS; i += W) {
            int64_t part = std::min(W, n.HS - i);
            Halves d = to_bf16(load_some(dout[t] + i, part));
            store_part(head.dout + t * n.HS + i, d, part);
            D += to_float(d) * to_float(load_part(out[t] + i, part));
        }
        head.D[t] = sum<float>(D);
        head.logsumexp[t] = logsumexp[t] * LOG2_E;
    }
    for (int64_t b = 0; b < n.blocks; b++) {
        pack_across(head.q_across + b * n.across(), q, b * BLOCK, n);
        pack_along(head.q_along + b * n.along(), q, b * BLOCK, n);
        pack_across(head.dout_across + b * n.across(), {head.dout, n.HS}, b * BLOCK, n);
        pack_along(head.dout_along + b * n.along(), {head.dout, n.HS}, b * BLOCK, n);
    }
    std::fill_n(head.dq, n.blocks * BLOCK * n.width, 0.0f);
}

void start_keys(PairBackward& head, Rows<const bf16> k, Rows<const bf16> v, int64_t s) {
    copy_rows(head.k, k, s, head.n);
    copy_rows(head.v, v, s, head.n);
    pack_along(head.k_along, k, s, head.n);
    std::fill_n(head.dk, BLOCK * head.n.width, 0.0f);
    std::fill_n(head.dv, BLOCK * head.n.width, 0.0f);
}

// Key s + r: the first column of its row of P^T that is computed, of queries t and on; those before it do not see the key.
inline int64_t first_column(int64_t r, int64_t t, int64_t s) {
    return std::clamp<int64_t>(s + r - t, 0, BLOCK) / (2 * W) * (2 * W);
}

// S = K Q^T and dP = V dO^T.
template <bool INSTRUCTION>
void score_keys(PairBackward& head, int64_t t, int64_t s) {
    const PairSizes& n = head.n;
    const Panels q{head.q_across + t / BLOCK * n.across(), n.depth},
        dout{head.dout_across + t / BLOCK * n.across(), n.depth};
    for (int64_t r = 0; r < BLOCK; r += TILE_ROWS) {
        int64_t first = first_column(r, t, s) / W;
        pair_matmul<INSTRUCTION, TILE_ROWS>(head.S + r * BLOCK, BLOCK, head.k + r * n.depth, n.depth, q, first,
                                            BLOCK / W, 0, n.depth, false);
        pair_matmul<INSTRUCTION, TILE_ROWS>(head.dP + r * BLOCK, BLOCK, head.v + r * n.depth, n.depth, dout, first,
                                            BLOCK / W, 0, n.depth, false);
    }
}

// P^T and dS^T of the queries from t on against the keys from s on, in pairs of queries, and dS^T in pairs of keys.
template <bool INSTRUCTION>
void probabilities(PairBackward& head, int64_t t, int64_t s, float scale, const Options<float>& options) {
    const float *D = head.D + t, *logsumexp = head.logsumexp + t, cap = options.cap;
    bf16 *P = (bf16*)head.P, *dS = (bf16*)head.dS;
    auto slopes = [&](int64_t place, int64_t j, const Sight& sight, Vec<float>& p) {
        Vec<float> score = load(head.S + place), slope = splat<float>(1);
        if (cap) {
            Vec<float> u = vtanh<float>(score * scale / cap);
            score = cap * u, slope -= u * u;
        }
        p = sight.masked(vexp2_roughly(score * (cap ? LOG2_E : scale * LOG2_E) - load(logsumexp + j)), j, 0);
        Vec<float> ds = p * (load(head.dP + place) - load(D + j));
        return sight.masked(cap ? ds * slope : ds, j, 0);
    };
    for (int64_t r = 0; r < BLOCK; r++) {
        const Sight sight{s + r - t + options.window - 1, s + r - t - 1};  // queries from the key's own on
        for (int64_t j = first_column(r, t, s); j < BLOCK; j += 2 * W) {
            const int64_t place = r * BLOCK + j;
            Vec<float> p[2], first = slopes(place, j, sight, p[0]), second = slopes(place + W, j + W, sight, p[1]);
            TwoHalves both = rounded_halves<INSTRUCTION>(p[0], p[1]), ds = rounded_halves<INSTRUCTION>(first, second);
            std::memcpy(P + place, &both, sizeof both);
            std::memcpy(dS + place, &ds, sizeof ds);
        }
    }
    for (int64_t r = 0; r < BLOCK; r += 2)
        for (int64_t j = first_column(r, t, s); j < BLOCK; j += W)
            store(head.dS_along + r / 2 * BLOCK + j,
                  side_by_side<false>(dS + r * BLOCK + j, dS + (r + 1) * BLOCK + j, W));
}

// dV += P^T dO, dK += dS^T Q, dQ += dS K for one tile; columns before a key's own are skipped.
template <bool INSTRUCTION>
void add_gradients(PairBackward& head, int64_t t, int64_t s) {
    const PairSizes& n = head.n;
    const int64_t width = n.width, vectors = width / W, block = t / BLOCK * n.along();
    const Panels q{head.q_along + block, BLOCK / 2}, dout{head.dout_along + block, BLOCK / 2},
        k{head.k_along, BLOCK / 2};
    for (int64_t r = 0; r < BLOCK; r += TILE_ROWS) {
        int64_t first = first_column(r, t, s) / 2, last = visible(t + r + TILE_ROWS - 1 - s) / 2;
        pair_matmul<INSTRUCTION, TILE_ROWS>(head.dv + r * width, width, head.P + r * BLOCK / 2, BLOCK / 2, dout, 0,
                                            vectors, first, BLOCK / 2, true);
        pair_matmul<INSTRUCTION, TILE_ROWS>(head.dk + r * width, width, head.dS + r * BLOCK / 2, BLOCK / 2, q, 0,
                                            vectors, first, BLOCK / 2, true);
        pair_matmul<INSTRUCTION, TILE_ROWS, true>(head.dq + (t + r) * width, width, head.dS_along + r, BLOCK, k, 0,
                                                  vectors, 0, last, true);
    }
}

// to = from * scale, or += with `add`.
void unpack_rows(Rows<float> to, const float* from, int64_t begin, const PairSizes& n, int64_t rows, bool add,
                 float scale) {
    for (int64_t t = begin; t < std::min(begin + rows, n.T); t++, from += n.width) {
        fetch(to, t, n.HS);
        for (int64_t i = 0; i < n.HS; i += W) {
            int64_t part = std::min(W, n.HS - i);
            Vec<float> v = load(from + i) * scale;
            store_some(to[t] + i, add ? load_some(to[t] + i, part) + v : v, part);
        }
    }
}

template <bool INSTRUCTION>
void backward_by(PairBackward& head, const HeadRows<float>& d, Rows<const float> dout, const HeadRows<const bf16>& x,
                 Rows<const bf16> out, const float* logsumexp, bool add, const Options<float>& options) {
    const PairSizes& n = head.n;
    const float scale = 1 / std::sqrt(float(n.HS));
    start_queries(head, x.q, dout, out, logsumexp);
    for (int64_t s = 0; s < n.T; s += BLOCK) {
        start_keys(head, x.k, x.v, s);
        for (int64_t t = s; t < n.T && t - options.window < s + BLOCK; t += BLOCK) {
            score_keys<INSTRUCTION>(head, t, s);
            probabilities<INSTRUCTION>(head, t, s, scale, options);
            add_gradients<INSTRUCTION>(head, t, s);
        }
        unpack_rows(d.k, head.dk, s, n, BLOCK, add, scale);
        unpack_rows(d.v, head.dv, s, n, BLOCK, add, 1);
    }
    unpack_rows(d.q, head.dq, 0, n, n.T, false, scale);
}

void attend_pairs(PairForward& head, Rows<float> out, Rows<bf16> rounded, float* logsumexp, Rows<const bf16> q,
                  Rows<const bf16> k, Rows<const bf16> v, const Options<float>& options, bool instruction) {
    if (instruction) attend_by<true>(head, out, rounded, logsumexp, q, k, v, options);
    else attend_by<false>(head, out, rounded, logsumexp, q, k, v, options);
}

void backward_pairs(PairBackward& head, const HeadRows<float>& d, Rows<const float> dout, const HeadRows<const bf16>& x,
                    Rows<const bf16> out, const float* logsumexp, bool add, const Options<float>& options,
                    bool instruction) {
    if (instruction) backward_by<true>(head, d, dout, x, out, logsumexp, add, options);
    else backward_by<false>(head, d, dout, x, out, logsumexp, add, options);
}

}  // namespace minillm::attention
