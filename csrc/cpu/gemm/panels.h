// A weight that lies in memory as GEMM's panels of B (gemm.h), all of K in each: it is read from end to end, and never packed
// again.
//
//   float      panel[k][column], COLUMNS numbers a row        the columns of Fma's tile
//   bfloat16   panel[pair][column], k = 2p and 2p + 1         the columns of the engine in use, Dot's or AMX's
//
// Why: rows of a matrix (K, N) are pages apart, and where each is read for a piece of N only, the machine's own prefetching
// starts anew each time. Decoding, which waits for little but its weights, gets a third of the bandwidth so, and nearly all of
// it from panels (benchmarks/LOG.md). A long prompt multiplies by the same panels, and so needs no second copy.
//
// Determinism: sums as in few_rows.h and gemm.h, in the same order: the same bits as from the matrix.
#pragma once

#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/gemm/pair_tile.h"

namespace minillm {

constexpr int64_t PADDED_DEPTH = 32;  // rows of a panel of pairs: a multiple of this, as AMX reads them

// What `strip_gemm` takes for B: column j (the first of a panel) from row k on.
template <class Element>
struct InPanels {
    const Element* data;
    int64_t line;  // elements of a column, of all K
};
template <class Engine>
StripOfB<typename Engine::Element> strip_of(const Engine&, typename Engine::Element*,
                                            const InPanels<typename Engine::Element>& B, int64_t k, Range columns,
                                            int64_t) {
    return {B.data + columns.begin * B.line + Engine::elements(k) * Engine::COLUMNS, B.line};
}

// Columns of a panel of pairs.
inline int64_t columns_of_pairs() { return has_amx() ? AmxTiles::COLUMNS : Dot::COLUMNS; }

// ---- few rows: a step of decoding, in float ----

constexpr int64_t FETCHED_AHEAD = 2048;  // pairs, 8 KB
constexpr int AT_ONCE = VECTOR_BYTES == 64 ? 8 : 4;  // rows of A whose sums are in registers

// sums (R, V * WIDTH) = A (R, depth) @ the rows of a panel.
template <int R, int V, class T>
inline void multiply_panel(T* sums, const T* const* a, const T* panel, int64_t depth) {
    constexpr int64_t W = WIDTH<T>;
    Vec<T> total[R][V] = {};
    for (int64_t k = 0; k < depth; k++, panel += V * W) {
        Vec<T> b[V];
        UNROLL_FOR (int v = 0; v < V; v++) b[v] = load(panel + v * W);
        UNROLL_FOR (int r = 0; r < R; r++)
            UNROLL_FOR (int v = 0; v < V; v++) total[r][v] += a[r][k] * b[v];
    }
    UNROLL_FOR (int r = 0; r < R; r++)
        UNROLL_FOR (int v = 0; v < V; v++) store(sums + (r * V + v) * W, total[r][v]);
}

// The same of pairs. Where depth is odd, the last pair's second number does not count, nor is an a[depth] there. Several rows
// multiply for about as long as a line takes from memory: it is asked for well before.
template <int R, int V>
inline void multiply_panel(float* sums, const float* const* a, const Pair* panel, int64_t depth) {
    constexpr int64_t W = WIDTH<float>;
    Vec<float> total[R][V] = {};
    for (int64_t k = 0; k < depth; k += 2, panel += V * W) {
        Bits b[V];
        UNROLL_FOR (int v = 0; R > 3 && v < V; v++) __builtin_prefetch(panel + FETCHED_AHEAD + v * W, 0, 2);
        UNROLL_FOR (int v = 0; v < V; v++) b[v] = load(panel + v * W);
        UNROLL_FOR (int r = 0; r < R; r++)
            UNROLL_FOR (int v = 0; v < V; v++) total[r][v] += a[r][k] * lower(b[v]);
        if (k + 1 == depth) break;
        UNROLL_FOR (int r = 0; r < R; r++)
            UNROLL_FOR (int v = 0; v < V; v++) total[r][v] += a[r][k + 1] * upper(b[v]);
    }
    UNROLL_FOR (int r = 0; r < R; r++)
        UNROLL_FOR (int v = 0; v < V; v++) store(sums + (r * V + v) * W, total[r][v]);
}

template <int R, int V, class Element>
void multiply_rows(int64_t rows, float* sums, const float* const* a, const Element* panel, int64_t depth) {
    if constexpr (R > 1)
        if (rows < R) return multiply_rows<R - 1, V>(rows, sums, a, panel, depth);
    multiply_panel<R, V>(sums, a, panel, depth);
}

// C (M, N) = A (M, K) @ the panels, of V vectors each; M <= FEW. The threads of a parallel region share them; all are done
// when it returns.
template <int V, class Element, class Epilogue>
void few_rows_by_panels(int64_t M, int64_t N, int64_t K, Matrix<float> A, InPanels<Element> B, float* C, int64_t stride,
                        const Epilogue& epilogue) {
    constexpr int64_t COLUMNS = V * WIDTH<float>, NUMBERS = std::is_same_v<Element, Pair> ? 2 : 1;
    const int64_t panels = ceil_div(N, COLUMNS), pieces = 4 * omp_get_num_threads();
    const int64_t turns = std::clamp<int64_t>(panels / pieces, 1, 16);  // panels in a row
#pragma omp for schedule(dynamic, turns)
    for (int64_t panel = 0; panel < panels; panel++) {
        alignas(64) float sums[AT_ONCE * COLUMNS];
        int64_t column = panel * COLUMNS, n = std::min(COLUMNS, N - column);
        for (int64_t k = 0; k < K || k == 0; k += KC<float>) {
            int64_t depth = std::min(KC<float>, K - k);
            const Element* b = B.data + column * B.line + k / NUMBERS * COLUMNS;
            for (int64_t row = 0; row < M; row += AT_ONCE) {
                const float* a[AT_ONCE];
                int64_t rows = std::min<int64_t>(AT_ONCE, M - row);
                for (int64_t r = 0; r < rows; r++) a[r] = A.from(row + r, k).data;
                multiply_rows<AT_ONCE, V>(rows, sums, a, b, depth);
                for (int64_t r = 0; r < rows; r++)
                    write_row(C + (row + r) * stride + column, sums + r * COLUMNS, n, {k == 0, k + depth == K},
                              epilogue, row + r, column);
            }
        }
    }
}

template <class Epilogue>
void few_rows(int64_t M, int64_t N, int64_t K, Matrix<float> A, InPanels<float> B, float* C, int64_t stride,
              const Epilogue& epilogue) {
    few_rows_by_panels<NV>(M, N, K, A, B, C, stride, epilogue);
}
template <class Epilogue>
void few_rows(int64_t M, int64_t N, int64_t K, Matrix<float> A, InPanels<Pair> B, float* C, int64_t stride,
              const Epilogue& epilogue) {
    if (has_amx()) few_rows_by_panels<AmxTiles::COLUMNS / WIDTH<float>>(M, N, K, A, B, C, stride, epilogue);
    else few_rows_by_panels<NV>(M, N, K, A, B, C, stride, epilogue);
}

// ---- many rows: a prompt, in the arithmetic of the type ----

template <class Epilogue>
void matmul(int64_t M, int64_t N, int64_t K, Matrix<float> A, InPanels<float> B, float* C, const Epilogue& epilogue) {
    if (M > FEW) return packed_gemm(Fma<float>(), M, N, K, A, B, C, N, false, epilogue);
#pragma omp parallel if (N * K > 1 << 15)
    few_rows(M, N, K, A, B, C, N, epilogue);
}

template <class Epilogue>
void matmul_bf16(int64_t M, int64_t N, int64_t K, Matrix<bf16> A, InPanels<Pair> B, float* C,
                 const Epilogue& epilogue) {
    if (has_amx()) packed_gemm(AmxTiles(), M, N, K, Operand(A), B, C, N, false, epilogue);
    else dot_gemm(Dot(), M, N, K, Operand(A), B, C, N, false, epilogue);
}

}  // namespace minillm
