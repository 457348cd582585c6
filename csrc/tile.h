// Small products whose operands lie packed in the nearest cache: the inner loops of attention.
#pragma once

#include <vector>

#include "simd.h"

// Memory that starts on a cache line, so that no packed vector straddles two. It starts as zeros.
template <class T>
class TileMemory {
    struct alignas(64) Line {
        char bytes[64];
    };
    std::vector<Line> lines;

public:
    explicit TileMemory(int64_t n) : lines((n * sizeof(T) + 63) / 64) {}
    T* data() { return reinterpret_cast<T*>(lines.data()); }
};

constexpr int TILE_ROWS = 4;                                         // accumulators: TILE_ROWS x TILE_VECTORS
constexpr int TILE_VECTORS = VECTOR_BYTES == 64 ? 4 : 2;             // of 32 under AVX-512, of 16 elsewhere

// c[i, j] (+)= sum over p in [begin, end) of a(i, p) * b[p, j] for R rows i and N vectors of columns j;
// a(i, p) is a[i, p], or a[p, i] if TRANSPOSED. Each c[i, j] is one chain of multiply-adds in the order of p, so its
// bits do not depend on R and N. The R x N accumulators live in registers: N loads and R broadcasts feed R * N
// multiply-adds.
template <class T, int R, int N, bool TRANSPOSED>
inline void tile_product(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t begin,
                         int64_t end, bool add) {
    Vec<T> total[R][N];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) total[i][j] = add ? load(c + i * ldc + j * WIDTH<T>) : Vec<T>{};
    for (int64_t p = begin; p < end; p++) {
        Vec<T> row[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) row[j] = load(b + p * ldb + j * WIDTH<T>);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            T x = TRANSPOSED ? a[p * lda + i] : a[i * lda + p];
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) total[i][j] += x * row[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) store(c + i * ldc + j * WIDTH<T>, total[i][j]);
}

// The same for any number of vectors, cut as evenly as TILE_VECTORS allows.
template <class T, int R, bool TRANSPOSED = false>
void product(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t begin, int64_t end,
             int64_t vectors, bool add) {
    for (int64_t pieces = (vectors + TILE_VECTORS - 1) / TILE_VECTORS; pieces > 0; pieces--) {
        int64_t n = vectors / pieces;
        switch (n) {
        case 1: tile_product<T, R, 1, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
        case 2: tile_product<T, R, 2, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
        case 3: tile_product<T, R, 3, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
        default: tile_product<T, R, 4, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add);
        }
        vectors -= n;
        b += n * WIDTH<T>;
        c += n * WIDTH<T>;
    }
}

// to[j, i] = from[i, j] for a square of WIDTH x WIDTH numbers.
template <class T>
inline void transpose_square(T* to, int64_t ldt, const T* from, int64_t ldf) {
    constexpr int W = WIDTH<T>;
    Vec<T> rows[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) rows[i] = load(from + i * ldf);
    transpose<T>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) store(to + i * ldt, rows[i]);
}

// to[j, i] = from[i, j] for any number of rows and columns.
template <class T>
void transpose(T* to, int64_t ldt, const T* from, int64_t ldf, int64_t rows, int64_t columns) {
    constexpr int64_t W = WIDTH<T>;
    int64_t full = columns / W * W;
    for (int64_t i = 0; i < rows; i += W) {
        int64_t count = std::min(W, rows - i), squares = count == W ? full : 0;
        for (int64_t j = 0; j < squares; j += W) transpose_square(to + j * ldt + i, ldt, from + i * ldf + j, ldf);
        for (int64_t j = squares; j < columns; j++)
            for (int64_t r = i; r < i + count; r++) to[j * ldt + r] = from[r * ldf + j];
    }
}
