// GEMM in bfloat16: operands rounded to 8 bits as they are packed, sums in float. Blocks: gemm.h.
//
// The unit of work is a pair: two neighbours in k, side by side in 32 bits. One instruction multiplies and adds 16
// pairs (VDPBF16PS), twice the arithmetic of a float multiply-add, and panels have half the bytes. Where the machine
// lacks it, a pair is taken apart and costs two multiply-adds: the same numbers, no faster than float. AMX, which
// multiplies whole tiles of pairs, is in amx.h.
//
//   packed panel    panel[p][line] = (k = 2p, k = 2p + 1) of that row of A or column of B; zeros beyond the last k
//
// Determinism: as in gemm.h, and each pair is added in the order VDPBF16PS has: k = 2p + 1, then k = 2p, each with one
// rounding. That instruction takes numbers under 2^-126 for zeros, the other path does not.
#pragma once

#include "cpu/gemm/pairs.h"

namespace minillm {

// The tile's rows of A: packed, or where they are.
struct PanelOfA {
    const Pair* pairs;                                                 // (elements, MR)
    Pair at(int row, int64_t p) const { return pairs[p * MR + row]; }
};

struct RowsOfA {
    const char* rows[MR];
    RowsOfA(const bf16* a, int64_t stride, int64_t count) {            // those beyond the last read it again
        for (int64_t i = 0; i < MR; i++) rows[i] = (const char*)(a + std::min(i, count - 1) * stride);
    }
    Pair at(int row, int64_t p) const {
        Pair pair;
        std::memcpy(&pair, rows[row] + p * sizeof pair, sizeof pair);
        return pair;
    }
};

// Has this CPU VDPBF16PS, in a build that may use it?
inline bool has_dot_instruction() {
#if defined(__AVX512F__)
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return false;
#endif
}

// The engine (see gemm.h) of vectors of pairs. What it does is compiled once, in matmul_bf16.cpp.
struct Dot {
    typedef Pair Element;
    typedef float Number;
    struct Session {};
    static constexpr int64_t ROWS = MR, COLUMNS = NR<float>, DEPTH = 1024;
    static constexpr int64_t elements(int64_t depth) { return ceil_div(depth, 2); }
    bool instruction = has_dot_instruction();  // or the same by float arithmetic

    void pack_a(Pair* panels, const Operand& A, int64_t rows, int64_t depth) const;
    void pack_b(Pair* panels, const Operand& B, int64_t columns, int64_t depth) const;

    void tile(Session& s, float* c, const Pair* a, const Pair* b, int64_t depth, int64_t columns) const {
        tile(s, c, PanelOfA{a}, b, depth, columns);
    }
    void tile(Session&, float* c, const PanelOfA& a, const Pair* b, int64_t depth, int64_t columns) const;
    void tile(Session&, float* c, const RowsOfA& a, const Pair* b, int64_t depth, int64_t columns) const;
};

// GEMM where the rows of A are bf16 and hold whole pairs: they are read in place, and only B is packed.
template <class MatrixB, class Epilogue>
void gemm_of_rows(const Dot& engine, int64_t M, int64_t N, int64_t K, Matrix<bf16> A, const MatrixB& B, float* C,
                  int64_t stride, bool accumulate, const Epilogue& epilogue) {
    thread_local Scratch<Pair> scratch;
    auto left = [&](int64_t i, int64_t k, int64_t) { return RowsOfA(A.data + i * A.stride + k, A.stride, M - i); };
#pragma omp parallel if (M * N * K > 1 << 17)
    {
        Grid grid = Grid::of<Dot>(M, N, omp_get_num_threads());
        Pair* packed_b = scratch.at_least(grid.strip * Dot::elements(std::min(K, Dot::DEPTH)));
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < grid.items; item++)
            strip_gemm(engine, B, C, stride, left, packed_b, grid.rows_of(item), grid.columns_of(item), {0, K}, K,
                       !accumulate, epilogue, 0);
    }
}

template <class MatrixB, class Epilogue>
void dot_gemm(const Dot& engine, int64_t M, int64_t N, int64_t K, const Operand& A, const MatrixB& B, float* C,
              int64_t stride, bool accumulate, const Epilogue& epilogue) {
    if (!A.is_float && !A.transposed && K % 2 == 0 && M && N && K)
        return gemm_of_rows(engine, M, N, K, A.as<bf16>(), B, C, stride, accumulate, epilogue);
    packed_gemm(engine, M, N, K, A, B, C, stride, accumulate, epilogue);
}

}  // namespace minillm
