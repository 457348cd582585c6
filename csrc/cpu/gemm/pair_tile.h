// Micro-kernels for small matmuls in bfloat16 whose operands lie packed in L1: the twin of tile.h, with a pair (see bf16.h)
// where that has a number.
#pragma once

#include "cpu/gemm/pairs.h"
#include "cpu/gemm/tile.h"

namespace minillm {

inline Vec<float> upper(Bits pairs) { return (Vec<float>)(pairs & 0xffff0000); }
inline Vec<float> lower(Bits pairs) { return (Vec<float>)(pairs << 16); }

// sum += both products of each pair, k = 2p + 1 first: VDPBF16PS, or the same by float arithmetic.
template <bool INSTRUCTION>
inline Vec<float> add_products(Vec<float> sum, Bits a, Bits b) {
#if defined(__AVX512F__)
    if constexpr (INSTRUCTION) {
        asm("vdpbf16ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
    }
#endif
    sum += upper(a) * upper(b);
    return sum + lower(a) * lower(b);
}

// A right-hand factor: vector j of its row of pairs p, which is 2p and 2p + 1 in k, is at data + (j * depth + p) * WIDTH.
struct Panels {
    const Pair* data;
    int64_t depth;
    const Pair* vector(int64_t j) const { return data + j * depth * WIDTH<Pair>; }
};

// x as a right-hand factor whose k runs along memory (x transposed), or from row to row: `columns` columns, k < depth.
inline void pack_panels(Pair* to, Matrix<bf16> x, int64_t columns, int64_t depth, int64_t pairs) {
    pack_pairs<WIDTH<Pair>>(to, rows_of<false>(x.transpose(), columns, depth), pairs);
}

// c[i, j] (+)= sum over pairs p in [begin, end) of a(i, p) * b(p, j), for R rows and N vectors from vector `first` on;
// a(i, p) is a[i, p], or a[p, i] if TRANSPOSED. Each c[i, j] is one chain in the order of p, whatever R and N.
template <bool INSTRUCTION, int R, int N, bool TRANSPOSED>
void tile_of_pairs(float* c, int64_t ldc, const Pair* a, int64_t lda, Panels b, int64_t first, int64_t begin,
                   int64_t end, bool add) {
    constexpr int64_t W = WIDTH<float>;
    Vec<float> total[R][N];
    UNROLL_FOR (int i = 0; i < R; i++)
        UNROLL_FOR (int j = 0; j < N; j++) total[i][j] = add ? load(c + i * ldc + j * W) : Vec<float>{};
    for (int64_t p = begin; p < end; p++) {
        Bits row[N];
        UNROLL_FOR (int j = 0; j < N; j++) row[j] = load(b.vector(first + j) + p * W);
        UNROLL_FOR (int i = 0; i < R; i++) {
            Bits x = splat(TRANSPOSED ? a[p * lda + i] : a[i * lda + p]);
            UNROLL_FOR (int j = 0; j < N; j++) total[i][j] = add_products<INSTRUCTION>(total[i][j], x, row[j]);
        }
    }
    UNROLL_FOR (int i = 0; i < R; i++)
        UNROLL_FOR (int j = 0; j < N; j++) store(c + i * ldc + j * W, total[i][j]);
}

// The same for vectors [first, last) of a row, which go to c + first * WIDTH and on, cut as evenly as TILE_VECTORS allows.
template <bool INSTRUCTION, int R, bool TRANSPOSED = false>
void pair_matmul(float* c, int64_t ldc, const Pair* a, int64_t lda, Panels b, int64_t first, int64_t last,
                 int64_t begin, int64_t end, bool add) {
    for (int64_t pieces = ceil_div(last - first, TILE_VECTORS); pieces > 0; pieces--) {
        int64_t n = (last - first) / pieces;
        auto with = [&](auto vectors) {
            tile_of_pairs<INSTRUCTION, R, vectors, TRANSPOSED>(c + first * WIDTH<float>, ldc, a, lda, b, first, begin,
                                                               end, add);
        };
        if (n == 1) with(std::integral_constant<int, 1>());
        else if (n == 2) with(std::integral_constant<int, 2>());
        else if (n == 3) with(std::integral_constant<int, 3>());
        else with(std::integral_constant<int, 4>());
        first += n;
    }
}

}  // namespace minillm
