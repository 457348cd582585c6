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

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "cpu/gemm/gemm.h"
#include "cpu/simd/bfloat16.h"

namespace minillm {

// ---- reading pairs: `count` lines (rows of A or columns of B) of `depth` numbers, each float or bf16 ----

// INSTRUCTION: rounding by VCVTNE2PS2BF16, two vectors at once, which takes numbers under 2^-126 for zeros.
typedef uint16_t TwoHalves __attribute__((vector_size(VECTOR_BYTES)));       // 2 WIDTH<float> of them

inline TwoHalves joined(Halves first, Halves second) {
    TwoHalves both;
    std::memcpy(&both, &first, sizeof first);
    std::memcpy((char*)&both + sizeof first, &second, sizeof second);
    return both;
}

template <bool INSTRUCTION>
inline TwoHalves rounded_halves(Vec<float> first, Vec<float> second) {
#if defined(__AVX512F__)
    if constexpr (INSTRUCTION) {
        TwoHalves both;
        asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(first), "v"(second));
        return both;
    }
#endif
    return joined(to_bf16(first), to_bf16(second));
}

// 2 WIDTH<float> neighbours, of which n are there.
template <bool INSTRUCTION>
inline TwoHalves neighbours(const float* p, int64_t n) {
    constexpr int64_t W = WIDTH<float>;
    if (n >= 2 * W) return rounded_halves<INSTRUCTION>(load(p), load(p + W));
    return rounded_halves<INSTRUCTION>(load_part(p, std::min(W, n)), n > W ? load_part(p + W, n - W) : Vec<float>{});
}
template <bool INSTRUCTION>
inline TwoHalves neighbours(const bf16* p, int64_t n) {
    TwoHalves both{};
    if (n >= 2 * WIDTH<float>) std::memcpy(&both, p, sizeof both);
    else std::memcpy(&both, p, n * sizeof(bf16));
    return both;
}

// Lane i: the pair (low[i], high[i]) of two rows, of which n lanes are there.
template <size_t... I>
inline Bits interleaved(TwoHalves v, std::index_sequence<I...>) {
    constexpr int W = WIDTH<float>;
    return (Bits)shuffle<int(I / 2 + I % 2 * W)...>(v, v);
}

template <bool INSTRUCTION>
inline Bits side_by_side(const float* low, const float* high, int64_t n) {
    bool whole = n == WIDTH<float>;
    Vec<float> a = whole ? load(low) : load_part(low, n), b = whole ? load(high) : load_part(high, n);
    if constexpr (INSTRUCTION)
        return interleaved(rounded_halves<true>(a, b), std::make_index_sequence<2 * WIDTH<float>>());
    return rounded(a) >> 16 | (rounded(b) & 0xffff0000);
}
template <bool INSTRUCTION>
inline Bits side_by_side(const bf16* low, const bf16* high, int64_t n) {
    Halves a{}, b{};
    if (n == WIDTH<float>) std::memcpy(&a, low, sizeof a), std::memcpy(&b, high, sizeof b);
    else a = load_part(low, n), b = load_part(high, n);
    return __builtin_convertvector(a, Bits) | __builtin_convertvector(b, Bits) << 16;
}

template <class S, bool INSTRUCTION>
struct Lines {
    const S* data;
    int64_t stride;
    bool along_k;                      // a line's numbers are neighbours in memory; else its lines' are
    int64_t count, depth;

    // Pairs p, p + 1, ... of one line.
    Bits of_line(int64_t line, int64_t p) const {
        if (line >= count || 2 * p >= depth) return Bits{};
        return (Bits)neighbours<INSTRUCTION>(data + line * stride + 2 * p, depth - 2 * p);
    }

    // Rows of memory are often pages apart, where the machine's own prefetching stops.
    void ahead(int64_t line, int64_t p) const {
        __builtin_prefetch(data + 2 * p * stride + line);
        __builtin_prefetch(data + (2 * p + 1) * stride + line);
    }

    // Pair p of lines line, line + 1, ...
    Bits of_lines(int64_t line, int64_t p) const {
        int64_t n = std::min(WIDTH<float>, count - line);
        if (n <= 0 || 2 * p >= depth) return Bits{};
        const S* from = data + 2 * p * stride + line;
        if (2 * p + 1 < depth) return side_by_side<INSTRUCTION>(from, from + stride, n);
        return side_by_side<INSTRUCTION>(from, from, n) & 0xffff;
    }
};

template <bool INSTRUCTION, class S>
Lines<S, INSTRUCTION> rows_of_a(Matrix<S> A, int64_t rows, int64_t depth) {
    return {A.data, A.stride, !A.transposed, rows, depth};
}

template <bool INSTRUCTION, class S>
Lines<S, INSTRUCTION> columns_of_b(Matrix<S> B, int64_t columns, int64_t depth) {
    return {B.data, B.stride, B.transposed, columns, depth};
}

// WIDTH vectors, one for each of the pairs p, p + 1, ...: lane i is that pair of line + i.
template <class From>
inline void read_block(Bits* v, const From& from, int64_t line, int64_t p, bool lines_in_lanes) {
    constexpr int64_t W = WIDTH<float>;
    if (from.along_k) {
        UNROLL_FOR (int64_t i = 0; i < W; i++) v[i] = from.of_line(line + i, p);
    } else {
        UNROLL_FOR (int64_t i = 0; i < W; i++) v[i] = from.of_lines(line, p + i);
    }
    if (from.along_k == lines_in_lanes) transpose<Pair>(v);
}

// Panels of R lines, `elements` pairs deep.
template <int64_t R, class From>
void pack_pairs(Pair* panels, const From& from, int64_t elements) {
    constexpr int64_t W = WIDTH<float>, G = W < R ? W : R;       // G lanes of a vector go to one panel
    int64_t padded = ceil_div(from.count, R) * R;
    auto put = [&](const Bits& v, int64_t line, int64_t p) {
        for (int64_t g = line; g < std::min(padded, line + W); g += G)
            std::memcpy(panels + g / R * R * elements + p * R + g % R, (const Pair*)&v + (g - line), G * sizeof(Pair));
    };
    if (!from.along_k) {
        for (int64_t p = 0; p < elements; p++)
            for (int64_t line = 0; line < padded; line += W) {
                from.ahead(line, p + 8);
                put(from.of_lines(line, p), line, p);
            }
        return;
    }
    for (int64_t line = 0; line < padded; line += W)
        for (int64_t p = 0; p < elements; p += W) {
            Bits v[W];
            read_block(v, from, line, p, true);
            for (int64_t i = 0; i < std::min(W, elements - p); i++) put(v[i], line, p + i);
        }
}

// ---- the micro-kernel: as in gemm.h, with a pair where that has a number ----

inline Vec<float> upper(Bits pairs) { return (Vec<float>)(pairs & 0xffff0000); }
inline Vec<float> lower(Bits pairs) { return (Vec<float>)(pairs << 16); }

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

template <int VECTORS, class Left>
inline void fma_kernel(float* tile, const Left a, const Pair* b, int64_t elements) {
    Vec<float> sum[MR][VECTORS] = {};
    for (int64_t p = 0; p < elements; p++, b += NR<float>) {
        Bits row[VECTORS];
        UNROLL_FOR (int j = 0; j < VECTORS; j++) row[j] = load(b + j * WIDTH<Pair>);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] += upper(splat(a.at(i, p))) * upper(row[j]);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] += lower(splat(a.at(i, p))) * lower(row[j]);
    }
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) store(tile + i * NR<float> + j * WIDTH<float>, sum[i][j]);
}

#if defined(__AVX512F__)
template <int VECTORS, class Left>
__attribute__((target("avx512bf16"))) void vdpbf16ps_kernel(float* tile, const Left a, const Pair* b,
                                                            int64_t elements) {
    __m512 sum[MR][VECTORS];
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] = _mm512_setzero_ps();
    for (int64_t p = 0; p < elements; p++, b += NR<float>) {
        __m512i row[VECTORS];
        UNROLL_FOR (int j = 0; j < VECTORS; j++) row[j] = _mm512_loadu_si512(b + j * WIDTH<Pair>);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)_mm512_set1_epi32(a.at(i, p)), (__m512bh)row[j]);
    }
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) _mm512_storeu_ps(tile + i * NR<float> + j * WIDTH<float>, sum[i][j]);
}
#else
template <int VECTORS, class Left>
void vdpbf16ps_kernel(float*, const Left&, const Pair*, int64_t) {}            // never called
#endif

// The same for a number of columns: compiled once, in matmul_bf16.cpp.
template <bool INSTRUCTION, int VECTORS, class Left>
inline void pair_kernel(float* tile, const Left& a, const Pair* b, int64_t elements) {
    if (INSTRUCTION) vdpbf16ps_kernel<VECTORS>(tile, a, b, elements);
    else fma_kernel<VECTORS>(tile, a, b, elements);
}
template <bool INSTRUCTION, class Left>
void pair_kernel(float* tile, const Left& a, const Pair* b, int64_t elements, int64_t columns) {
    if (columns <= WIDTH<float>) pair_kernel<INSTRUCTION, 1>(tile, a, b, elements);
    else if (columns <= 2 * WIDTH<float>) pair_kernel<INSTRUCTION, 2>(tile, a, b, elements);
    else pair_kernel<INSTRUCTION, NV>(tile, a, b, elements);
}
#define PAIR_KERNEL(INSTRUCTION, LEFT) \
    template void pair_kernel<INSTRUCTION>(float*, const LEFT&, const Pair*, int64_t, int64_t)
extern PAIR_KERNEL(false, PanelOfA);
extern PAIR_KERNEL(false, RowsOfA);
extern PAIR_KERNEL(true, PanelOfA);
extern PAIR_KERNEL(true, RowsOfA);

// Has this CPU VDPBF16PS, in a build that may use it?
inline bool has_dot_instruction() {
#if defined(__AVX512F__)
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return false;
#endif
}

// The engine (see gemm.h) of vectors of pairs.
template <bool INSTRUCTION>
struct Dot {
    typedef Pair Element;
    typedef float Number;
    struct Session {};
    static constexpr int64_t ROWS = MR, COLUMNS = NR<float>, DEPTH = 1024;
    static constexpr int64_t elements(int64_t depth) { return ceil_div(depth, 2); }

    template <class S>
    static void pack_a(Pair* panels, Matrix<S> A, int64_t rows, int64_t depth) {
        pack_pairs<ROWS>(panels, rows_of_a<INSTRUCTION>(A, rows, depth), elements(depth));
    }
    template <class S>
    static void pack_b(Pair* panels, Matrix<S> B, int64_t columns, int64_t depth) {
        pack_pairs<COLUMNS>(panels, columns_of_b<INSTRUCTION>(B, columns, depth), elements(depth));
    }

    static void tile(Session& s, float* c, const Pair* a, const Pair* b, int64_t depth, int64_t columns) {
        tile(s, c, PanelOfA{a}, b, depth, columns);
    }
    template <class Left>
    static void tile(Session&, float* c, const Left& a, const Pair* b, int64_t depth, int64_t columns) {
        pair_kernel<INSTRUCTION>(c, a, b, elements(depth), columns);
    }
};

// GEMM where the rows of A are bf16 and hold whole pairs: they are read in place, and only B is packed.
template <bool INSTRUCTION, class SB, class Epilogue>
void gemm_of_rows(int64_t M, int64_t N, int64_t K, Matrix<bf16> A, Matrix<SB> B, float* C, int64_t stride,
                  bool accumulate, const Epilogue& epilogue) {
    typedef Dot<INSTRUCTION> Engine;
    thread_local Scratch<Pair> scratch;
    auto left = [&](int64_t i, int64_t k, int64_t) { return RowsOfA(A.data + i * A.stride + k, A.stride, M - i); };
    Team team;
#pragma omp parallel if (M * N * K > 1 << 17)
    {
        KeptApart apart(team);
        Grid grid = Grid::of<Engine>(M, N, omp_get_num_threads());
        Pair* packed_b = scratch.at_least(grid.strip * Engine::elements(std::min(K, Engine::DEPTH)));
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < grid.strips * grid.blocks; item++) {
            int64_t column = item / grid.blocks * grid.strip, row = item % grid.blocks * grid.block;
            strip_gemm<Engine>(B, C, stride, left, packed_b, {row, std::min(M, row + grid.block)},
                               {column, std::min(N, column + grid.strip)}, {0, K}, K, !accumulate, epilogue, 0);
        }
    }
}

template <bool INSTRUCTION, class SA, class SB, class Epilogue>
void dot_gemm(int64_t M, int64_t N, int64_t K, Matrix<SA> A, Matrix<SB> B, float* C, int64_t stride, bool accumulate,
              const Epilogue& epilogue) {
    if constexpr (std::is_same_v<SA, bf16>)
        if (!A.transposed && K % 2 == 0 && M && N && K)
            return gemm_of_rows<INSTRUCTION>(M, N, K, A, B, C, stride, accumulate, epilogue);
    packed_gemm<Dot<INSTRUCTION>>(M, N, K, A, B, C, stride, accumulate, epilogue);
}

}  // namespace minillm
