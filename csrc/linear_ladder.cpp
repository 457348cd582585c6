// The road to a fast matrix product, one idea a rung. All compute what linear.cpp computes; `python -m benchmarks linear
// --ladder` says what each idea buys. Parallel over rows of C in all of them.
//
//   1_naive     the definition: three loops, one sum at a time
//   2_blocked   the loops reordered, so that memory is read along its rows, and cut, so that a block of B is read from
//               cache many times before it is dropped
//   3_simd      a tile of C in vector registers, so that a number loaded is used for several multiply-adds
//   (default)   packing, and sizes that fit the caches: gemm.h
#include "linear.h"

// 1: C[m, n] = sum over k of A[m, k] * B[k, n]. Neighbours in k of B are a row apart: each lies in another cache line.
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

// The next rungs run along rows of memory, so a transposed operand is written out as it is seen, once.
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
                            for (int64_t n = n0; n < std::min(N, n0 + WIDE); n++)
                                C[m * N + n] += A.data[m * A.stride + k] * B.data[k * B.stride + n];
        }
    }
};

// 3: 4 rows x 2 vectors of C are summed in registers over all of k: 6 loads for 8 multiply-adds, where rung 2 has a load
// and a store for each. Edges: fewer rows, and part of a vector.
struct Simd {
    template <int ROWS, class T>
    static void tile(T* C, const T* A, const T* B, int64_t lda, int64_t ldb, int64_t N, int64_t K, int64_t columns) {
        constexpr int64_t W = WIDTH<T>;
        int64_t left = std::min(W, columns), right = columns - left;
        Vec<T> sum[ROWS][2] = {};
        for (int64_t k = 0; k < K; k++) {
            const T* b = B + k * ldb;
            Vec<T> b0 = left == W ? load(b) : load_part(b, left), b1 = right == W ? load(b + W) : load_part(b + W, right);
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) {
                sum[i][0] += A[i * lda + k] * b0;
                sum[i][1] += A[i * lda + k] * b1;
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            store_part(C + i * N, sum[i][0], left);
            store_part(C + i * N + W, sum[i][1], right);
        }
    }

    template <class T>
    static void product(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        auto a = straightened(A, M, K), b = straightened(B, K, N);
#pragma omp parallel for
        for (int64_t m = 0; m < M; m += 4)
            for (int64_t n = 0; n < N; n += 2 * WIDTH<T>) {
                int64_t columns = std::min(2 * WIDTH<T>, N - n), i = m;
                T* c = C + n;
                const T* bn = B.data + n;
                if (M - m >= 4) tile<4>(c + i * N, A.data + i * A.stride, bn, A.stride, B.stride, N, K, columns);
                else for (; i < M; i++) tile<1>(c + i * N, A.data + i * A.stride, bn, A.stride, B.stride, N, K, columns);
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

    static void backward(T* dx, T* dweight, T* dbias, const T* dout, const T* x, const T* weight, int64_t N, int64_t I,
                         int64_t J) {
        Rung::template product<T>(dx, {dout, J}, {weight, J, true}, N, I, J);
        Rung::template product<T>(dweight, {x, I, true}, {dout, J}, I, J, N);
        column_sums(dbias, dout, N, J);
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
