// GEMM, the general matrix product C = op(A) op(B): the loop in which a transformer spends nine tenths of its time.
//
//   C[m, n] (+)= sum over k of A[m, k] * B[k, n]         A is (M, K), B is (K, N); either may be stored transposed
//
// Three ideas bring it close to the roofline's flat part, the peak of the arithmetic units (Goto & van de Geijn 2008,
// "Anatomy of High-Performance Matrix Multiplication"; the BLIS papers), by raising the arithmetic intensity:
//   tile    the micro-kernel keeps MR x NR numbers of C in registers while k runs: it loads MR + NR numbers for MR * NR
//           multiply-adds;
//   pack    A and B are first copied into panels in the order in which the tile reads them, so that loads are
//           sequential whatever the transposition, and edges are padded with zeros;
//   block   a strip of B, KC x (some NR), is small enough for L2, a panel of A, MR x KC, for L1.
//
// Loop order: strips of columns (parallel) > blocks of KC in K > panels of A > panels of B > micro-kernel (k > tile).
// Every thread packs the strips of B it works on; A is packed once, by all, and shared.
//
// Determinism: each element of C is the sum, in order, of blocks of KC products, each block summed in order of k from
// zero. That depends on no other size, no edge and no thread count, so a row of C has the same bits in a batch of one or
// of a thousand.
#pragma once

#include <type_traits>

#include "cpu/gemm/tile.h"
#include "cpu/isa/threads.h"
#include "cpu/memory/scratch.h"

namespace minillm {

// Sizes of the tile and of the blocks. 16 registers hold 4 x 3 vectors of C (3 more for B, 1 for A); without fused
// multiply-add one is needed for each product, so 4 x 2; AVX-512's 32 registers hold 8 x 3.
constexpr int64_t MR = VECTOR_BYTES == 64 ? 8 : 4;
constexpr int NV = VECTOR_BYTES == 16 ? 2 : 3;  // vectors in a row of the tile
template <class T>
constexpr int64_t NR = NV * WIDTH<T>;
template <class T>
constexpr int64_t KC = 1536 / sizeof(T);  // 384 floats
constexpr int64_t STRIP = 4;  // panels of B in a strip, at most
constexpr int64_t ROWS_OF_A = 1024, BLOCKS_OF_K = 3;  // A is packed in pieces of 1024 x 3 KC: 4.5 MB

// A matrix as GEMM sees it: element (i, j) is data[i * stride + j], or data[j * stride + i] if transposed.
template <class T>
struct Matrix {
    const T* data;
    int64_t stride;
    bool transposed = false;

    Matrix from(int64_t i, int64_t j) const {
        return {data + (transposed ? j * stride + i : i * stride + j), stride, transposed};
    }
    Matrix transpose() const { return {data, stride, !transposed}; }
};

// ---- packing: `lines` rows of A, or columns of B, go to panels of R lines, panel[k][line], padded with zeros ----

// Lines are rows in memory: a block of WIDTH x WIDTH is read along k and transposed in registers.
template <class T, int64_t R>
void pack_across(T* panels, const T* src, int64_t stride, int64_t lines, int64_t depth) {
    constexpr int64_t W = WIDTH<T>, G = W < R ? W : R;  // G lanes of a vector go to one panel
    int64_t padded = ceil_div(lines, R) * R;
    for (int64_t line = 0; line < padded; line += W)
        for (int64_t k = 0; k < depth; k += W) {
            for (int64_t i = 0; i < std::min(W, lines - line); i++)
                __builtin_prefetch(src + (line + i) * stride + k + 2 * W);
            Vec<T> v[W];
            int64_t width = std::min(W, depth - k);
            load_transposed<T>(v, src + line * stride + k, stride, lines - line, width);
            for (int64_t g = line; g < std::min(padded, line + W); g += G) {
                T* to = panels + g / R * R * depth + k * R + g % R;
                for (int64_t i = 0; i < width; i++)
                    std::memcpy(to + i * R, (const T*)&v[i] + (g - line), G * sizeof(T));
            }
        }
}

// Lines are columns in memory: R of them are copied for each k. Rows of memory are often pages apart, where the machine's
// own prefetching stops.
template <class T, int64_t R>
void pack_along(T* panels, const T* src, int64_t stride, int64_t lines, int64_t depth) {
    for (int64_t k = 0; k < depth; k++)
        for (int64_t line = 0; line < lines; line += R) {
            T* to = panels + line * depth + k * R;
            const T* from = src + k * stride + line;
            for (int64_t i = 0; i < R; i += 64 / sizeof(T)) __builtin_prefetch(from + 8 * stride + i);
            if (lines - line >= R) {
                std::memcpy(to, from, R * sizeof(T));
            } else {
                std::memset(to, 0, R * sizeof(T));
                std::memcpy(to, from, (lines - line) * sizeof(T));
            }
        }
}

template <class T, int64_t R>
void pack(T* panels, const T* src, int64_t stride, bool lines_are_rows, int64_t lines, int64_t depth) {
    if (lines_are_rows) pack_across<T, R>(panels, src, stride, lines, depth);
    else pack_along<T, R>(panels, src, stride, lines, depth);
}

// ---- the micro-kernel ----

// tile (MR, VECTORS * WIDTH) = panel of A (depth, MR) transposed @ panel of B (depth, NR), its first columns.
template <class T, int VECTORS>
inline void micro_kernel(T* tile, const T* a, const T* b, int64_t depth) {
    Vec<T> sum[MR][VECTORS] = {};  // all of it in registers
    for (int64_t k = 0; k < depth; k++, a += MR, b += NR<T>) {
        Vec<T> row[VECTORS];
        UNROLL_FOR (int j = 0; j < VECTORS; j++) row[j] = load(b + j * WIDTH<T>);
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int j = 0; j < VECTORS; j++) sum[i][j] += a[i] * row[j];
    }
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int j = 0; j < VECTORS; j++) store(tile + i * NR<T> + j * WIDTH<T>, sum[i][j]);
}

// The same for a number of columns: compiled once, in matmul.cpp, as all that the ops share.
template <class T>
void micro_kernel(T* tile, const T* a, const T* b, int64_t depth, int64_t columns) {
    if (columns <= WIDTH<T>) micro_kernel<T, 1>(tile, a, b, depth);
    else if (columns <= 2 * WIDTH<T>) micro_kernel<T, 2>(tile, a, b, depth);
    else micro_kernel<T, NV>(tile, a, b, depth);
}
extern template void micro_kernel(float*, const float*, const float*, int64_t, int64_t);
extern template void micro_kernel(double*, const double*, const double*, int64_t, int64_t);

// An engine is a way to pack operands and a micro-kernel for their panels; the blocks below are the same for all. Elements are what
// panels are made of, COLUMNS and ROWS the tile, DEPTH the block of K; a Session lasts for some tiles of one thread.
template <class T>
struct Fma {  // one fused multiply-add a term
    typedef T Element, Number;
    struct Session {};
    static constexpr int64_t ROWS = MR, COLUMNS = NR<T>, DEPTH = KC<T>;
    static constexpr int64_t elements(int64_t depth) { return depth; }  // of a line `depth` numbers long

    static void pack_a(T* panels, Matrix<T> A, int64_t rows, int64_t depth) {
        pack<T, ROWS>(panels, A.data, A.stride, !A.transposed, rows, depth);
    }
    static void pack_b(T* panels, Matrix<T> B, int64_t columns, int64_t depth) {
        pack<T, COLUMNS>(panels, B.data, B.stride, B.transposed, columns, depth);
    }
    static void tile(Session&, T* c, const T* a, const T* b, int64_t depth, int64_t columns) {
        micro_kernel(c, a, b, depth, columns);
    }
};

// What happens to the numbers of C on their way to memory. `first`: nothing is in C yet. `last`: the sum is complete and
// goes through the epilogue, a function (v, row, column, n) that is fused into the GEMM: it sees n neighbours of a row of
// C and returns what is stored, or nothing if it has stored it elsewhere.
struct Stage { bool first, last; };

struct NoEpilogue {
    template <class V>
    V operator()(V v, int64_t, int64_t, int64_t) const {
        return v;
    }
};

// The epilogue of a GEMM whose rows share a bias.
template <class T>
struct AddBias {
    const T* bias;
    Vec<T> operator()(Vec<T> v, int64_t, int64_t column, int64_t n) const { return v + load_part(bias + column, n); }
};

template <class T, class Epilogue>
inline void write_part(T* c, Vec<T> v, int64_t n, Stage stage, const Epilogue& epilogue, int64_t row, int64_t column) {
    if (!stage.first) v = load_part(c, n) + v;
    if constexpr (std::is_void_v<decltype(epilogue(v, row, column, n))>) {
        if (stage.last) epilogue(v, row, column, n);
        else store_part(c, v, n);
    } else {
        store_part(c, stage.last ? epilogue(v, row, column, n) : v, n);
    }
}

template <class T, class Epilogue>
inline void write_row(T* c, const T* sums, int64_t columns, Stage stage, const Epilogue& epilogue, int64_t row,
                      int64_t column) {
    constexpr int64_t W = WIDTH<T>;
    int64_t j = 0;
    for (; j + W <= columns; j += W) write_part(c + j, load(sums + j), W, stage, epilogue, row, column + j);
    if (j < columns) write_part(c + j, load_part(sums + j, columns - j), columns - j, stage, epilogue, row, column + j);
}

template <class Engine, class T, class Left, class Epilogue>
void tile_gemm(const Engine& engine, typename Engine::Session& session, T* c, int64_t stride, const Left& a,
               const typename Engine::Element* b, int64_t depth, int64_t rows, int64_t columns, Stage stage,
               const Epilogue& epilogue, int64_t row, int64_t column) {
    alignas(64) T tile[Engine::ROWS * Engine::COLUMNS];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < Engine::COLUMNS; j += 64 / sizeof(T)) __builtin_prefetch(c + i * stride + j, 1);
    engine.tile(session, tile, a, b, depth, columns);
    for (int64_t i = 0; i < rows; i++)
        write_row(c + i * stride, tile + i * Engine::COLUMNS, columns, stage, epilogue, row + i, column);
}

// ---- the blocks ----

// A strip of B in panels, `line` elements for each column: packed for this strip, or as it lies (panels.h).
template <class Element>
struct StripOfB {
    const Element* data;
    int64_t line;
};
template <class Engine, class MatrixB>
StripOfB<typename Engine::Element> strip_of(const Engine& engine, typename Engine::Element* packed, const MatrixB& B,
                                            int64_t k, Range columns, int64_t depth) {
    engine.pack_b(packed, B.from(k, columns.begin), columns.end - columns.begin, depth);
    return {packed, Engine::elements(depth)};
}

// One strip of columns, for a range of rows and the part `ks` of K. left(i, k, line): where the tile at row i finds A.
template <class Engine, class MatrixB, class T, class Left, class Epilogue>
void strip_gemm(const Engine& engine, const MatrixB& B, T* C, int64_t stride, const Left& left,
                typename Engine::Element* packed_b, Range rows, Range columns, Range ks, int64_t K, bool first,
                const Epilogue& epilogue, int64_t row0) {
    constexpr int64_t R = Engine::ROWS, COLUMNS = Engine::COLUMNS;
    typename Engine::Session session;
    for (int64_t k = ks.begin; k < ks.end || k == 0; k += Engine::DEPTH) {
        int64_t depth = std::min(Engine::DEPTH, ks.end - k), line = Engine::elements(depth);
        auto b = strip_of(engine, packed_b, B, k, columns, depth);
        Stage stage{first && k == ks.begin, k + depth == K};
        for (int64_t i = rows.begin; i < rows.end; i += R)
            for (int64_t j = columns.begin; j < columns.end; j += COLUMNS)
                tile_gemm(engine, session, C + (row0 + i) * stride + j, stride, left(i, k, line),
                          b.data + (j - columns.begin) * b.line, depth, std::min(R, rows.end - i),
                          std::min(COLUMNS, columns.end - j), stage, epilogue, row0 + i, j);
        if (!depth) break;  // K = 0: C is all zeros, once
    }
}

// Pack the part of A that starts at (row0, ks.begin): blocks of DEPTH, each of panels of ROWS. All threads share it.
template <class Engine, class MatrixA>
void pack_shared(const Engine& engine, typename Engine::Element* packed, const MatrixA& A, int64_t row0, int64_t rows,
                 Range ks) {
    constexpr int64_t PIECE = 64;  // rows packed at a time, a multiple of ROWS
    int64_t pieces = ceil_div(rows, PIECE), blocks = ceil_div(ks.end - ks.begin, Engine::DEPTH);
    int64_t padded = ceil_div(rows, Engine::ROWS) * Engine::ROWS;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < pieces * blocks; item++) {
        int64_t row = item % pieces * PIECE, k = item / pieces * Engine::DEPTH;
        int64_t depth = std::min(Engine::DEPTH, ks.end - ks.begin - k);
        engine.pack_a(packed + Engine::elements(k) * padded + row * Engine::elements(depth),
                      A.from(row0 + row, ks.begin + k), std::min(PIECE, rows - row), depth);
    }
}

// How C is cut into items of work: strips of columns with all rows, large, so that what is packed is used long; and the last ones,
// or all where there are few, cut into blocks of rows, so that all threads end at nearly the same time.
struct Grid {
    int64_t rows, columns, strip, whole, block, blocks, items;  // whole: strips that are not cut

    template <class Engine>
    static Grid of(int64_t rows, int64_t columns, int64_t threads) {
        constexpr int64_t R = Engine::ROWS, COLUMNS = Engine::COLUMNS, LAST_BLOCKS = 4;
        int64_t wanted = threads == 1 ? 1 : 4 * threads, panels = ceil_div(columns, COLUMNS);
        int64_t strip = std::clamp<int64_t>(panels / wanted, 1, STRIP) * COLUMNS, strips = ceil_div(columns, strip);
        int64_t cut = threads == 1 ? 0 : std::min(strips, threads);
        int64_t blocks = std::min(std::max(wanted / strips, LAST_BLOCKS), std::max<int64_t>(rows / 96, 1));
        int64_t block = round_up(ceil_div(rows, blocks), R);
        blocks = ceil_div(rows, block);
        return {rows, columns, strip, strips - cut, block, blocks, strips - cut + cut * blocks};
    }

    Range columns_of(int64_t item) const {
        int64_t begin = (item < whole ? item : whole + (item - whole) / blocks) * strip;
        return {begin, std::min(columns, begin + strip)};
    }
    Range rows_of(int64_t item) const {
        if (item < whole) return {0, rows};
        int64_t begin = (item - whole) % blocks * block;
        return {begin, std::min(rows, begin + block)};
    }
};

template <class Engine, class MatrixA, class MatrixB, class T, class Epilogue>
void packed_gemm(const Engine& engine, int64_t M, int64_t N, int64_t K, const MatrixA& A, const MatrixB& B, T* C,
                 int64_t stride, bool accumulate, const Epilogue& epilogue) {
    typedef typename Engine::Element Element;
    thread_local Scratch<Element> scratch_a, scratch_b;
    constexpr int64_t PART = BLOCKS_OF_K * Engine::DEPTH, R = Engine::ROWS;
    if (M == 0 || N == 0) return;
    Element* packed_a =
        scratch_a.at_least(std::min(ceil_div(M, R) * R, ROWS_OF_A) * Engine::elements(std::min(K, PART)));
#pragma omp parallel if (M * N * K > 1 << 17)
    {
        int64_t threads = omp_get_num_threads();
        Element* packed_b = scratch_b.at_least(STRIP * Engine::COLUMNS * Engine::elements(std::min(K, Engine::DEPTH)));
        for (int64_t row0 = 0; row0 < M; row0 += ROWS_OF_A)
            for (int64_t k0 = 0; k0 < K || k0 == 0; k0 += PART) {
                int64_t rows = std::min(ROWS_OF_A, M - row0);
                Range ks{k0, std::min(K, k0 + PART)};
                pack_shared(engine, packed_a, A, row0, rows, ks);
                Grid grid = Grid::of<Engine>(rows, N, threads);
                auto left = [&](int64_t i, int64_t k, int64_t line) -> const Element* {
                    return packed_a + Engine::elements(k - k0) * ceil_div(rows, R) * R + i * line;
                };
#pragma omp for schedule(dynamic) nowait
                for (int64_t item = 0; item < grid.items; item++)
                    strip_gemm(engine, B, C, stride, left, packed_b, grid.rows_of(item), grid.columns_of(item), ks, K,
                               !accumulate && k0 == 0, epilogue, row0);
                if (row0 + rows < M || ks.end < K) {  // nobody packs the next part while others read this one
#pragma omp barrier
                }
            }
    }
}

}  // namespace minillm
