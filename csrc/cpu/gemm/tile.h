// Micro-kernels for small matmuls whose operands lie packed in L1: the inner loops of attention.
#pragma once

#include "cpu/memory/scratch.h"
#include "cpu/simd/vec.h"

namespace minillm {

constexpr int TILE_ROWS = 4;                                         // accumulators: TILE_ROWS x TILE_VECTORS
constexpr int TILE_VECTORS = VECTOR_BYTES == 64 ? 4 : 2;             // of 32 under AVX-512, of 16 elsewhere

// c[i, j] (+)= sum over p in [begin, end) of a(i, p) * b[p, j] for R rows i and N vectors of columns j;
// a(i, p) is a[i, p], or a[p, i] if TRANSPOSED. Each c[i, j] is one chain of multiply-adds in the order of p, so its
// bits do not depend on R and N. The R x N accumulators live in registers: N loads and R broadcasts feed R * N
// multiply-adds.
template <class T, int R, int N, bool TRANSPOSED>
inline void tile_kernel(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t begin, int64_t end,
                        bool add) {
    Vec<T> total[R][N];
    UNROLL_FOR (int i = 0; i < R; i++)
        UNROLL_FOR (int j = 0; j < N; j++) total[i][j] = add ? load(c + i * ldc + j * WIDTH<T>) : Vec<T>{};
    for (int64_t p = begin; p < end; p++) {
        Vec<T> row[N];
        UNROLL_FOR (int j = 0; j < N; j++) row[j] = load(b + p * ldb + j * WIDTH<T>);
        UNROLL_FOR (int i = 0; i < R; i++) {
            T x = TRANSPOSED ? a[p * lda + i] : a[i * lda + p];
            UNROLL_FOR (int j = 0; j < N; j++) total[i][j] += x * row[j];
        }
    }
    UNROLL_FOR (int i = 0; i < R; i++)
        UNROLL_FOR (int j = 0; j < N; j++) store(c + i * ldc + j * WIDTH<T>, total[i][j]);
}

// The same for any number of vectors, cut as evenly as TILE_VECTORS allows.
template <class T, int R, bool TRANSPOSED = false>
void tile_matmul(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t begin, int64_t end,
                 int64_t vectors, bool add) {
    for (int64_t pieces = (vectors + TILE_VECTORS - 1) / TILE_VECTORS; pieces > 0; pieces--) {
        int64_t n = vectors / pieces;
        switch (n) {
            case 1: tile_kernel<T, R, 1, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
            case 2: tile_kernel<T, R, 2, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
            case 3: tile_kernel<T, R, 3, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add); break;
            default: tile_kernel<T, R, 4, TRANSPOSED>(c, ldc, a, lda, b, ldb, begin, end, add);
        }
        vectors -= n;
        b += n * WIDTH<T>;
        c += n * WIDTH<T>;
    }
}

// v[j], lane i = from[i, j]: `depth` numbers of each of `lines` rows, zeros for what is missing of WIDTH x WIDTH.
template <class T>
inline void load_transposed(Vec<T>* v, const T* from, int64_t stride, int64_t lines, int64_t depth) {
    constexpr int64_t W = WIDTH<T>;
    UNROLL_FOR (int64_t i = 0; i < W; i++) {
        const T* p = from + i * stride;
        v[i] = i >= lines ? Vec<T>{} : depth >= W ? load(p) : load_part(p, depth);
    }
    transpose<T>(v);
}

}  // namespace minillm
