// The road to a fast matrix product, one idea a rung. All compute what linear.cpp computes; what each idea buys is
// shown by `python -m benchmarks linear --ladder`.
//
//   1_naive     the definition: three loops, one sum at a time
//   2_blocked   the loops reordered, so that memory is read along its rows, and cut, so that a block of B is read from
//               cache many times before it is dropped
//   3_simd      a tile of C in vector registers, so that a number loaded is used for several multiply-adds
//   (default)   a larger tile, both operands packed in the order it reads them, block sizes that fit the caches: gemm.h
#include "linear.h"

// 1: C[m, n] = sum over k of A[m, k] * B[k, n]. Neighbours in k of B are a row apart: each lies in another cache line.
// Parallel over rows of C, as the next.
struct Naive {
    template <class T>
    static void product(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
#pragma omp parallel for
        for (int64_t m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++) {
                T sum = 0;
                for (int64_t k = 0; k < K; k++) sum += *A.from(m, k).data * *B.from(k, n).data;
                C[m * N + n] = sum;
            }
    }
};

// The next rungs run along rows of memory, so a transposed operand is first written out as it is seen.
template <class T>
std::vector<T> straightened(Matrix<T>& A, int64_t rows, int64_t columns) {
    if (!A.transposed) return {};
    std::vector<T> straight(rows * columns);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) straight[i * columns + j] = A.data[j * A.stride + i];
    A = {straight.data(), columns};
    return straight;
}

// 2: blocks of 64 in k and 512 in n: 128 KB of B in float. The inner loop adds a multiple of a row of B to a row of C.
struct Blocked {
    template <class T>
    static void add_multiple(T* c, T a, const T* b, int64_t n) {             // the compiler makes vectors of it
        for (int64_t i = 0; i < n; i++) c[i] += a * b[i];
    }

    template <class T>
    static void product(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        constexpr int64_t ROWS = 32, DEPTH = 64, WIDE = 512;
        auto a = straightened(A, M, K), b = straightened(B, K, N);
#pragma omp parallel for
        for (int64_t m0 = 0; m0 < M; m0 += ROWS) {
            int64_t m1 = std::min(M, m0 + ROWS);
            std::fill(C + m0 * N, C + m1 * N, T(0));
            for (int64_t n0 = 0; n0 < N; n0 += WIDE)
                for (int64_t k0 = 0; k0 < K; k0 += DEPTH)
                    for (int64_t m = m0; m < m1; m++)
                        for (int64_t k = k0; k < std::min(K, k0 + DEPTH); k++)
                            add_multiple(C + m * N + n0, A.data[m * A.stride + k], B.data + k * B.stride + n0,
                                         std::min(WIDE, N - n0));
        }
    }
};

// 3: 4 rows x 2 vectors of C are summed in registers over all of k: 6 loads for 8 multiply-adds, where rung 2 has two
// loads and a store for each. The 2 vectors of columns of B are first copied side by side: as rows far apart in memory
// they would fight for the same few places in the cache. Parallel over these strips of columns.
struct Simd {
    template <int ROWS, class T>
    static void tile(T* C, const T* A, int64_t stride, const T* strip, int64_t N, int64_t K, int64_t columns) {
        constexpr int64_t W = WIDTH<T>;
        Vec<T> sum[ROWS][2] = {};
        for (int64_t k = 0; k < K; k++) {
            Vec<T> b0 = load(strip + 2 * W * k), b1 = load(strip + 2 * W * k + W);
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) {
                sum[i][0] += A[i * stride + k] * b0;
                sum[i][1] += A[i * stride + k] * b1;
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            store_part(C + i * N, sum[i][0], std::min(W, columns));
            if (columns > W) store_part(C + i * N + W, sum[i][1], columns - W);
        }
    }

    template <class T>
    static void product(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        constexpr int64_t WIDE = 2 * WIDTH<T>;
        auto a = straightened(A, M, K);
#pragma omp parallel for
        for (int64_t n = 0; n < N; n += WIDE) {
            int64_t columns = std::min(WIDE, N - n), m = 0;
            std::vector<T> strip(K * WIDE);                                  // (K, WIDE), zeros past the last column
            for (int64_t k = 0; k < K; k++)
                for (int64_t j = 0; j < columns; j++) strip[k * WIDE + j] = *B.from(k, n + j).data;
            for (; m + 4 <= M; m += 4)
                tile<4>(C + m * N + n, A.from(m, 0).data, A.stride, strip.data(), N, K, columns);
            for (; m < M; m++)
                tile<1>(C + m * N + n, A.from(m, 0).data, A.stride, strip.data(), N, K, columns);
        }
    }
};

// A rung's product as a linear layer.
template <class Rung, class T>
struct RungLayer {
    static void forward(T* out, const T* x, const T* weight, const T* bias, int64_t N, int64_t I, int64_t J) {
        Rung::template product<T>(out, {x, I}, {weight, J}, N, J, I);
        for (int64_t n = 0; n < N; n++)
            for (int64_t j = 0; j < J; j++) out[n * J + j] += bias[j];
    }

    static void backward(T* dx, T* dweight, T* dbias, bool add, const T* dout, const T* x, const T* weight, int64_t N,
                         int64_t I, int64_t J) {
        std::vector<T> before(dweight, dweight + (add ? I * J : 0));             // a rung knows no other way to add
        Rung::template product<T>(dx, {dout, J}, {weight, J, true}, N, I, J);
        Rung::template product<T>(dweight, {x, I, true}, {dout, J}, I, J, N);
        for (size_t i = 0; i < before.size(); i++) dweight[i] += before[i];
        column_sums(dbias, dout, N, J, add);
    }
};

template <class T>
using NaiveLinear = RungLayer<Naive, T>;
template <class T>
using BlockedLinear = RungLayer<Blocked, T>;
template <class T>
using SimdLinear = RungLayer<Simd, T>;

void bind_linear_ladder(py::module_& m) {
    bind_linear_pair<NaiveLinear>(m, "_1_naive");
    bind_linear_pair<BlockedLinear>(m, "_2_blocked");
    bind_linear_pair<SimdLinear>(m, "_3_simd");
}
