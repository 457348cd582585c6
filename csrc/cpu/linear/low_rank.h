// What a low-rank update costs a layer, as kernels. Formulas: minillm/ops/lora_linear.py.
//
//   h = scale * drop(x) @ a.T       a (r, I): rank_rows, on the way of x into bf16 if it goes there
//   out += h @ b                    b (r, J): LowRank, an epilogue of the frozen layer's GEMM
//   db = h.T @ dout                 outer_sums
//
// and back the same with b for a and dout for x. A GEMM packs both operands for tiles as wide as r is not; here nothing is
// packed, x is read as it lies, and r sums are in registers. Both matrices have a row for each rank; where they are stored
// the other way, rank_major transposes them, which are small.
//
// Determinism: a row's sums go over its own numbers in one order. Sums over rows: CHUNKS pieces, each in order, then the
// pieces in order, as in column_sums.h.
#pragma once

#include "cpu/dropout_mask.h"
#include "cpu/gemm/matmul.h"
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/memory/scratch.h"

namespace minillm::low_rank {

// Dropout of a matrix, or none; `first`: the place of the mask's row that is row 0 here.
template <class T>
struct Mask {
    const uint8_t* keep = nullptr;
    int64_t first = 0;
    T scale = 1;

    Vec<T> operator()(Vec<T> v, int64_t row, int64_t column, int64_t columns) const {
        return keep ? dropout::kept<T>(v * scale, keep, (first + row) * columns + column) : v;
    }
    Mask from(int64_t row) const { return {keep, first + row, scale}; }
};

// drop(x) (rows, columns), stored as S.
template <class T, class S>
struct Dropped {
    const S* x;
    int64_t columns;
    Mask<T> mask;

    Vec<T> at(int64_t row, int64_t column, int64_t n) const {
        return mask(load_numbers(x + row * columns + column, n), row, column, columns);
    }
};

// ---- h = scale * drop(x) @ m.T ----

constexpr int RANKS = VECTOR_BYTES == 64 ? 8 : 4, LINES = VECTOR_BYTES == 64 ? 3 : 2;  // sums in registers

// Sums of neighbouring lanes of a, then of b.
template <class T, size_t... I>
inline Vec<T> pair_sums(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
    return shuffle<int(2 * I)...>(a, b) + shuffle<int(2 * I + 1)...>(a, b);
}

// h[p] = scale * the sum of the lanes of v[p], which are folded together: fewer steps than one after the other.
template <int P, class T>
inline void fold(T* h, Vec<T>* v, T scale) {
    constexpr int W = WIDTH<T>, G = P < W ? P : W;
    for (int first = 0; first < P; first += G) {
        UNROLL_FOR (int n = G; n > 1; n /= 2)
            UNROLL_FOR (int i = 0; i < n / 2; i++)
                v[first + i] = pair_sums<T>(v[first + 2 * i], v[first + 2 * i + 1], std::make_index_sequence<W>());
        T lanes[W];
        store(lanes, v[first]);
        for (int p = 0; p < G; p++) {
            T total = lanes[p * (W / G)];
            for (int i = 1; i < W / G; i++) total += lanes[p * (W / G) + i];
            h[first + p] = scale * total;
        }
    }
}

template <int R, int P, class T, class S>
inline void rank_tile(T* h, int64_t r, const Dropped<T, S>& x, int64_t row, const T* m, T scale) {
    constexpr int64_t W = WIDTH<T>;
    Vec<T> total[R][P] = {};
    auto add = [&](int64_t i, int64_t n) {
        Vec<T> v[R];
        UNROLL_FOR (int j = 0; j < R; j++) v[j] = x.at(row + j, i, n);
        UNROLL_FOR (int p = 0; p < P; p++) {
            Vec<T> w = load_numbers(m + p * x.columns + i, n);
            UNROLL_FOR (int j = 0; j < R; j++) total[j][p] += v[j] * w;
        }
    };
    int64_t i = 0;
    for (; i + W <= x.columns; i += W) add(i, W);
    if (i < x.columns) add(i, x.columns - i);
    UNROLL_FOR (int j = 0; j < R; j++) fold<P>(h + j * r, total[j], scale);
}

template <int R, class T, class S>
void rank_lines(T* h, int64_t r, const Dropped<T, S>& x, int64_t row, const T* m, T scale) {
    int64_t p = 0;
    auto tile = [&](auto ranks) {
        for (; p + ranks <= r; p += ranks) rank_tile<R, ranks>(h + p, r, x, row, m + p * x.columns, scale);
    };
    tile(std::integral_constant<int, RANKS>());
    tile(std::integral_constant<int, 2>());
    tile(std::integral_constant<int, 1>());
}

// Of the rows in the range: h (rows, r).
template <class T, class S>
void rank_range(T* h, int64_t r, const Dropped<T, S>& x, Range rows, const T* m, T scale) {
    int64_t row = rows.begin;
    for (; row + LINES <= rows.end; row += LINES) rank_lines<LINES>(h + row * r, r, x, row, m, scale);
    for (; row < rows.end; row++) rank_lines<1>(h + row * r, r, x, row, m, scale);
}

constexpr int64_t BLOCK = 48;  // rows at a time: they stay in L2

// h (rows, r). from: null, or what x, in bf16, is rounded from first.
template <class T, class S>
void rank_rows(T* h, int64_t r, const Dropped<T, S>& x, int64_t rows, const T* m, T scale, const T* from = nullptr) {
#pragma omp parallel for schedule(static) if (rows * x.columns > 1 << 13)
    for (int64_t block = 0; block < ceil_div(rows, BLOCK); block++) {
        Range range{block * BLOCK, std::min(rows, (block + 1) * BLOCK)};
        if constexpr (!std::is_same_v<T, S>)
            if (from) round_range((S*)x.x, from, {range.begin * x.columns, range.end * x.columns});
        rank_range(h, r, x, range, m, scale);
    }
}

// ---- the epilogue: v + bias + drop(h @ m); bias may be null ----

template <class T>
struct LowRank {
    const T *bias, *h, *m;  // h (rows, r), m (r, columns)
    int64_t r, columns;
    Mask<T> mask = {};

    Vec<T> operator()(Vec<T> v, int64_t row, int64_t column, int64_t n) const {
        if (bias) v += load_numbers(bias + column, n);
        const T *line = h + row * r, *from = m + column;
        Vec<T> update{};
        if (n == WIDTH<T>)
            for (int64_t p = 0; p < r; p++) update += line[p] * load(from + p * columns);
        else
            for (int64_t p = 0; p < r; p++) update += line[p] * load_part(from + p * columns, n);
        return v + mask(update, row, column, columns);
    }
};

// ---- g = h.T @ drop(x), (r, columns) ----

template <int P, int V, class T, class S>
inline void outer_tile(T* g, const T* h, int64_t r, const Dropped<T, S>& x, Range rows, int64_t column, int64_t n) {
    constexpr int64_t W = WIDTH<T>;
    Vec<T> total[P][V] = {};
    for (int64_t row = rows.begin; row < rows.end; row++) {
        Vec<T> v[V];
        UNROLL_FOR (int j = 0; j < V; j++) v[j] = x.at(row, column + j * W, V == 1 ? n : W);
        UNROLL_FOR (int p = 0; p < P; p++)
            UNROLL_FOR (int j = 0; j < V; j++) total[p][j] += h[row * r + p] * v[j];
    }
    UNROLL_FOR (int p = 0; p < P; p++)
        UNROLL_FOR (int j = 0; j < V; j++) store_part(g + p * x.columns + column + j * W, total[p][j], V == 1 ? n : W);
}

template <int P, class T, class S>
void outer_ranks(T* g, const T* h, int64_t r, const Dropped<T, S>& x, Range rows) {
    constexpr int64_t W = WIDTH<T>;
    constexpr int V = VECTOR_BYTES == 64 ? 3 : 2;
    int64_t column = 0;
    for (; column + V * W <= x.columns; column += V * W) outer_tile<P, V>(g, h, r, x, rows, column, W);
    for (; column < x.columns; column += W) outer_tile<P, 1>(g, h, r, x, rows, column, std::min(W, x.columns - column));
}

// One of the two gradients: g (r, columns), or (columns, r) where `transposed`; null if nobody wants it.
template <class T>
struct Gradient {
    T* g;
    bool transposed, add;

    void take(const T* parts, int64_t r, int64_t columns) const {  // parts (CHUNKS, r, columns)
        auto total_from = [&](int64_t at, int64_t n) {
            Vec<T> total = load_numbers(parts + at, n);
            for (int64_t chunk = 1; chunk < CHUNKS; chunk++) total += load_numbers(parts + chunk * r * columns + at, n);
            return total;
        };
        for (int64_t p = 0; p < r; p++)
            for (int64_t j = 0; j < columns; j += WIDTH<T>) {
                int64_t n = std::min(WIDTH<T>, columns - j);
                const Vec<T> total =
                    n == WIDTH<T> ? total_from(p * columns + j, WIDTH<T>) : total_from(p * columns + j, n);
                for (int64_t i = 0; i < n; i++) {
                    T& place = transposed ? g[(j + i) * r + p] : g[p * columns + j + i];
                    place = add ? place + total[i] : total[i];
                }
            }
    }
};

template <class T, class S>
void outer_sums(const Gradient<T>& gradient, const T* h, int64_t r, const Dropped<T, S>& x, int64_t rows) {
    if (!gradient.g) return;
    thread_local Scratch<T> scratch;
    T* parts = scratch.at_least(CHUNKS * r * x.columns);
#pragma omp parallel for schedule(dynamic) if (rows * x.columns > 1 << 13)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        int64_t p = 0;
        auto ranks = [&](auto count) {
            for (; p + count <= r; p += count)
                outer_ranks<count>(parts + (chunk * r + p) * x.columns, h + p, r, x, chunk_of(rows, chunk));
        };
        ranks(std::integral_constant<int, RANKS>());
        ranks(std::integral_constant<int, 1>());
    }
    gradient.take(parts, r, x.columns);
}

// m (n, r) as (r, n), in scratch; or m itself if it is (r, n).
template <class T>
const T* rank_major(Scratch<T>& scratch, const T* m, int64_t n, int64_t r, bool already) {
    if (already) return m;
    T* to = scratch.at_least(n * r);
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < r; p++) to[p * n + i] = m[i * r + p];
    return to;
}

// ---- matmuls in the type of the arrays, T, or, if S is bf16, in that ----

template <class T, class S>
struct Types {
    static constexpr bool MIXED = !std::is_same_v<T, S>;
    typedef std::conditional_t<MIXED, Operand, Matrix<T>> Right;  // a weight
    typedef std::conditional_t<MIXED, uint16_t, T> Bits;

    template <class Epilogue>
    static void multiply(int64_t M, int64_t N, int64_t K, const S* A, const Right& B, T* C, const Epilogue& epilogue) {
        if constexpr (MIXED) matmul_bf16(M, N, K, Matrix<bf16>{A, K}, B, C, N, false, epilogue);
        else matmul<T>(M, N, K, {A, K}, B, C, N, false, epilogue);
    }
};

}  // namespace minillm::low_rank
