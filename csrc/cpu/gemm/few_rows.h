// GEMM with few rows (GEMV for one): decoding a token. Each weight is used once or a few times, an arithmetic intensity at
// which memory bandwidth is the bound: the weights are read once, as they are stored, and nothing is packed.
//
//   C[m, n] (+)= sum over k of A[m, k] * B[k, n]       M <= FEW; B (K, N): float, double, bfloat16, int8 with scales
//
// Loop order: pieces of columns (parallel) > blocks of KC in K > DEPTH rows of B > vectors of columns > rows of A > k.
// DEPTH numbers of B become floats once and meet every row of A; the sums of a piece stay in the first cache.
//
// Determinism: each element is summed as in gemm.h, by blocks of KC in order of k, one chain of multiply-adds a block:
// the same bits as there, in whatever batch. A bfloat16 or int8 weight counts as the float that `dequantize` makes of it.
#pragma once

#include "cpu/gemm/gemm.h"

namespace minillm {

constexpr int64_t FEW = 16, FEW_SUMS = 8192;  // rows at most; sums of a piece, 32 KB in float
constexpr int64_t DEPTH = 8;  // rows of B at a time: as many streams as prefetchers follow

// ---- how a stored matrix (K, N) is read: WIDTH numbers, or the first n of them, of row k from column j on. `from(k)`
// are the rows from k on; DEPTH of them have the same scales. Other forms: stored_rows.h ----

template <class T, bool FETCH>
struct PlainRows {
    typedef T Number;
    const T* data;
    int64_t stride;
    PlainRows from(int64_t k) const { return {data + k * stride, stride}; }
    Vec<T> at(int64_t k, int64_t j) const { return load(data + k * stride + j); }
    Vec<T> part(int64_t k, int64_t j, int64_t n) const { return load_part(data + k * stride + j, n); }
    void prefetch(int64_t k, int64_t j) const {
        if constexpr (!FETCH) return;  // then the machine's own prefetching keeps up
        for (int64_t i = 0; i < 2 * WIDTH<T>; i += 64 / sizeof(T))
            __builtin_prefetch(data + (k + DEPTH) * stride + j + i);
    }
};

// ---- the micro-kernel and its loops ----

// sums (M, VECTORS), rows `wide` apart, += A (M, D) @ VECTORS vectors of the first D rows of B. The last may be a part.
template <int VECTORS, bool PART, int64_t D, class T, class Rows>
inline void add_vectors(T* sums, int64_t wide, const T (*a)[D], int64_t M, const Rows& B, int64_t column, int64_t n) {
    Vec<T> b[D][VECTORS];
    UNROLL_FOR (int64_t d = 0; d < D; d++) {
        B.prefetch(d, column);
        UNROLL_FOR (int v = 0; v < VECTORS; v++)
            b[d][v] = PART ? B.part(d, column + v * WIDTH<T>, n) : B.at(d, column + v * WIDTH<T>);
    }
    for (int64_t m = 0; m < M; m++) {
        Vec<T> total[VECTORS];
        UNROLL_FOR (int v = 0; v < VECTORS; v++) total[v] = load(sums + m * wide + v * WIDTH<T>);
        UNROLL_FOR (int64_t d = 0; d < D; d++)
            UNROLL_FOR (int v = 0; v < VECTORS; v++) total[v] += a[m][d] * b[d][v];
        UNROLL_FOR (int v = 0; v < VECTORS; v++) store(sums + m * wide + v * WIDTH<T>, total[v]);
    }
}

// sums (M, n) += A (M, D) @ rows k ... k + D - 1 of B, columns column ... column + n - 1.
template <int64_t D, class T, class Rows>
void add_rows(T* sums, int64_t wide, Matrix<T> A, int64_t M, const Rows& all_of_b, int64_t k, int64_t column,
              int64_t n) {
    constexpr int64_t W = WIDTH<T>;
    constexpr int V = VECTOR_BYTES == 64 ? 2 : 1;  // of 32 registers, 16 hold B; of 16, 8
    T a[FEW][D];
    for (int64_t m = 0; m < M; m++)
        for (int64_t d = 0; d < D; d++) a[m][d] = *A.from(m, k + d).data;
    const Rows B = all_of_b.from(k);
    int64_t j = 0;
    for (; j + V * W <= n; j += V * W) add_vectors<V, false, D>(sums + j, wide, a, M, B, column + j, W);
    for (; j + W <= n; j += W) add_vectors<1, false, D>(sums + j, wide, a, M, B, column + j, W);
    if (j < n) add_vectors<1, true, D>(sums + j, wide, a, M, B, column + j, n - j);
}

// Columns at a time: some pieces for each thread, long enough rows of B for the memory, sums that stay in the cache.
template <class T, class Rows>
int64_t piece_of(int64_t M, int64_t N, int64_t threads) {
    constexpr int64_t STEP = 2 * WIDTH<T>;
    int64_t longest = 2048 / int64_t(sizeof *Rows::data), wide = std::min(longest, FEW_SUMS / M);
    int64_t pieces = ceil_div(ceil_div(N, wide), threads) * threads;  // as many for each thread
    wide = ceil_div(N, pieces);
    return ceil_div(wide, STEP) * STEP;
}

// The threads of a parallel region share the pieces; all are done when it returns. C holds the sums of earlier blocks.
template <class T, class Rows, class Epilogue>
void few_rows(int64_t M, int64_t N, int64_t K, Matrix<T> A, const Rows& B, T* C, int64_t stride, bool accumulate,
              const Epilogue& epilogue) {
    int64_t wide = piece_of<T, Rows>(M, N, omp_get_num_threads());
#pragma omp for schedule(dynamic)
    for (int64_t column = 0; column < N; column += wide) {
        alignas(64) T sums[FEW_SUMS + 2 * FEW * WIDTH<T>];
        int64_t n = std::min(wide, N - column);
        for (int64_t block = 0; block < K || block == 0; block += KC<T>) {
            int64_t k = block, end = std::min(K, block + KC<T>);
            std::fill_n(sums, M * wide, T(0));
            for (; k + DEPTH <= end; k += DEPTH) add_rows<DEPTH>(sums, wide, A, M, B, k, column, n);
            for (; k < end; k++) add_rows<1>(sums, wide, A, M, B, k, column, n);
            for (int64_t m = 0; m < M; m++)
                write_row(C + m * stride + column, sums + m * wide, n, {!accumulate && block == 0, end == K}, epilogue,
                          m, column);
        }
    }
}

// The same for plain numbers. Several rows of A keep the core busy while the next numbers of B should be on their way.
template <class T, class Epilogue>
void few_rows(int64_t M, int64_t N, int64_t K, Matrix<T> A, Matrix<T> B, T* C, int64_t stride, bool accumulate,
              const Epilogue& epilogue) {
    auto with = [&](const auto& rows) { few_rows<T>(M, N, K, A, rows, C, stride, accumulate, epilogue); };
    if (M > 2) with(PlainRows<T, true>{B.data, B.stride});
    else with(PlainRows<T, false>{B.data, B.stride});
}

// ---- the same with B transposed in memory, (N, K): the head, whose weight is the token embedding ----

// WIDTH columns of C at a time: a square of WIDTH rows of B is transposed in registers and meets every row of A, while the
// memory already fetches a piece of the next WIDTH rows, which follow in memory.
template <class T, class Epilogue>
void few_rows_transposed(int64_t M, int64_t N, int64_t K, Matrix<T> A, Matrix<T> B, T* C, int64_t stride,
                         bool accumulate, const Epilogue& epilogue) {
    constexpr int64_t W = WIDTH<T>;
    const int64_t turns = std::clamp<int64_t>(N / W / (4 * omp_get_num_threads()), 1, 64);  // some for each thread
#pragma omp for schedule(dynamic, turns)
    for (int64_t column = 0; column < N; column += W) {
        alignas(64) T sums[FEW * W];
        int64_t n = std::min(W, N - column);
        for (int64_t block = 0; block < K || block == 0; block += KC<T>) {
            int64_t end = std::min(K, block + KC<T>);
            std::fill_n(sums, M * W, T(0));
            for (int64_t k = block; k < end; k += W) {
                Vec<T> v[W];
                const char* next = (const char*)(B.data + (column + W) * B.stride + k * W);
                if (column + 2 * W <= N)
                    for (int64_t i = 0; i < int64_t(sizeof v); i += 64) __builtin_prefetch(next + i);
                int64_t depth = std::min(W, end - k);
                load_transposed<T>(v, B.data + column * B.stride + k, B.stride, n, depth);
                for (int64_t m = 0; m < M; m++) {
                    const T* a = A.from(m, k).data;
                    Vec<T> total = load(sums + m * W);
                    if (depth == W)
                        UNROLL_FOR (int64_t i = 0; i < W; i++) total += a[i] * v[i];
                    else
                        for (int64_t i = 0; i < depth; i++) total += a[i] * v[i];
                    store(sums + m * W, total);
                }
            }
            for (int64_t m = 0; m < M; m++)
                write_row(C + m * stride + column, sums + m * W, n, {!accumulate && block == 0, end == K}, epilogue, m,
                          column);
        }
    }
}

}  // namespace minillm
