// The engine (see gemm.h) of AMX: 2 x 2 tiles of C stay in four of the eight registers while k runs, two tiles of A and two
// of B are loaded for four tile matmuls. B is packed as for vectors; of A, a tile's rows are its own, so its pairs lie
// side by side:
//
//   panel of A: [block of 16 pairs][32 rows][16 pairs]        panel of B: [pair][32 columns]
#pragma once

#include "cpu/gemm/bf16.h"
#include "cpu/isa/amx.h"

namespace minillm {

template <class Registers>
struct Tiles {
    typedef Pair Element;
    typedef float Number;
    typedef Registers Session;
    static constexpr int64_t ROWS = 32, COLUMNS = 32, DEPTH = 1024;
    static constexpr int64_t elements(int64_t depth) { return ceil_div(depth, 32) * 16; }

    void pack_a(Pair* panels, const Operand& A, int64_t rows, int64_t depth) const;
    void pack_b(Pair* panels, const Operand& B, int64_t columns, int64_t depth) const {
        with_rows_of(B.transpose(), columns, depth, Registers::ROUNDS,
                     [&](const auto& from) { pack_pairs<COLUMNS>(panels, from, elements(depth)); });
    }
    void tile(Registers& r, float* c, const Pair* a, const Pair* b, int64_t depth, int64_t) const;
};

template <class Registers>
void Tiles<Registers>::pack_a(Pair* panels, const Operand& A, int64_t rows, int64_t depth) const {
    constexpr int64_t W = WIDTH<float>;
    with_rows_of(A, rows, depth, Registers::ROUNDS, [&](const auto& from) {
        for (int64_t row = 0; row < ceil_div(rows, ROWS) * ROWS; row += W)
            for (int64_t p = 0; p < elements(depth); p += W) {
                Bits v[W];  // W rows of W pairs
                read_block(v, from, row, p, false);
                Pair* to = panels + row / ROWS * ROWS * elements(depth) + p / 16 * 16 * ROWS + row % ROWS * 16 + p % 16;
                for (int64_t i = 0; i < W; i++) minillm::store(to + i * 16, v[i]);
            }
    });
}

template <class Registers>
void Tiles<Registers>::tile(Registers& r, float* c, const Pair* a, const Pair* b, int64_t depth, int64_t) const {
    r.template zero<0>(), r.template zero<1>(), r.template zero<2>(), r.template zero<3>();
    for (int64_t p = 0; p < elements(depth); p += 16, a += 16 * ROWS, b += 16 * COLUMNS) {
        r.template load<4>(a, 64), r.template load<5>(a + 16 * 16, 64);
        r.template load<6>(b, 4 * COLUMNS), r.template load<7>(b + 16, 4 * COLUMNS);
        r.template multiply_add<0, 4, 6>(), r.template multiply_add<1, 4, 7>();
        r.template multiply_add<2, 5, 6>(), r.template multiply_add<3, 5, 7>();
    }
    float* second = c + 16 * COLUMNS;
    r.template store<0>(c, 4 * COLUMNS), r.template store<1>(c + 16, 4 * COLUMNS);
    r.template store<2>(second, 4 * COLUMNS), r.template store<3>(second + 16, 4 * COLUMNS);
}

#if defined(__AMX_BF16__)
typedef Tiles<AmxRegisters> AmxTiles;
extern template struct Tiles<AmxRegisters>;  // compiled once, in matmul_bf16.cpp
#else
typedef Dot AmxTiles;                    // never used: has_amx() is false
#endif

}  // namespace minillm
