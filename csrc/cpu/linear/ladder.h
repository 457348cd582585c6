// The road to a fast matrix product, one idea a rung. All compute what linear.cpp computes; what each idea buys is
// shown by `python -m benchmarks linear --ladder`.
//
//   1_naive     the definition: three loops, one sum at a time
//   2_blocked   the loops reordered, so that memory is read along its rows, and cut, so that a block of B is read from
//               cache many times before it is dropped
//   3_simd      a tile of C in vector registers, so that a number loaded is used for several multiply-adds
//   4_amx       a register that is itself a tile, of bfloat16: one instruction does 8,192 multiply-adds (amx.h)
//   (default)   rung 3 again: a larger tile, both operands packed in the order it reads them, block sizes that fit the
//               caches: gemm.h
#include "gemm_bf16.h"
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

// 4: operands are rounded to bfloat16, in pairs of neighbours in k, and padded to whole tiles: of A, 16 rows of 16 pairs;
// of B, 16 pairs deep, 16 columns wide. 2 x 2 tiles of C are summed in four of the eight registers over all of k: four
// tiles are loaded for four products. Only float. On a CPU without AMX the registers are emulated: right, and slow.
// Parallel over columns of such blocks.
struct Amx {
    static constexpr int64_t SIDE = 32;                                      // of a block of C: 2 x 2 tiles

    template <class Registers>
    static void block(Registers& r, float* C, const Pair* a, int64_t P, const Pair* b, int64_t columns) {
        r.template zero<0>(), r.template zero<1>(), r.template zero<2>(), r.template zero<3>();
        for (int64_t p = 0; p < P; p += 16) {                                // strides in bytes
            r.template load<4>(a + p, 4 * P), r.template load<5>(a + 16 * P + p, 4 * P);
            r.template load<6>(b + p * columns, 4 * columns), r.template load<7>(b + p * columns + 16, 4 * columns);
            r.template multiply<0, 4, 6>(), r.template multiply<1, 4, 7>();
            r.template multiply<2, 5, 6>(), r.template multiply<3, 5, 7>();
        }
        r.template store<0>(C, 4 * SIDE), r.template store<1>(C + 16, 4 * SIDE);
        r.template store<2>(C + 16 * SIDE, 4 * SIDE), r.template store<3>(C + 16 * SIDE + 16, 4 * SIDE);
    }

    template <class Registers>
    static void blocks(float* C, const Pair* a, const Pair* b, int64_t M, int64_t N, int64_t P) {
        int64_t columns = round_up(N, SIDE);
#pragma omp parallel
        {
            Registers registers;
            float tile[SIDE * SIDE];
#pragma omp for
            for (int64_t n = 0; n < N; n += SIDE)
                for (int64_t m = 0; m < M; m += SIDE) {
                    block(registers, tile, a + m * P, P, b + n, columns);
                    for (int64_t i = m; i < std::min(M, m + SIDE); i++)
                        std::copy_n(tile + (i - m) * SIDE, std::min(SIDE, N - n), C + i * N + n);
                }
        }
    }

    template <class T>
    static void product(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        constexpr int64_t W = WIDTH<float>;
        auto straight_a = straightened(A, M, K), straight_b = straightened(B, K, N);
        auto rows = rows_of_a<false>(A, M, K);
        auto columns = columns_of_b<false>(B, N, K);
        int64_t P = round_up(K, 32) / 2, wide = round_up(N, SIDE);
        std::vector<Pair> a(round_up(M, SIDE) * P), b(P * wide);             // (rows, P), (P, columns), zeros beyond
        for (int64_t m = 0; m < M; m++)
            for (int64_t p = 0; p < P; p += W) store(a.data() + m * P + p, rows.of_line(m, p));
        for (int64_t p = 0; p < P; p++)
            for (int64_t n = 0; n < wide; n += W) store(b.data() + p * wide + n, columns.of_lines(n, p));
#if defined(__AMX_BF16__)
        if (has_amx()) return blocks<AmxRegisters>(C, a.data(), b.data(), M, N, P);
#endif
        blocks<EmulatedRegisters>(C, a.data(), b.data(), M, N, P);
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
        Rung::template product<T>(dx, {dout, J}, {weight, J, true}, N, I, J);
        column_sums(dbias, dout, N, J, add);
        if (!dweight) return;
        std::vector<T> before(dweight, dweight + (add ? I * J : 0));             // a rung knows no other way to add
        Rung::template product<T>(dweight, {x, I, true}, {dout, J}, I, J, N);
        for (size_t i = 0; i < before.size(); i++) dweight[i] += before[i];
    }
};

template <class T>
using NaiveLinear = RungLayer<Naive, T>;
template <class T>
using BlockedLinear = RungLayer<Blocked, T>;
template <class T>
using SimdLinear = RungLayer<Simd, T>;
template <class T>
using AmxLinear = RungLayer<Amx, T>;

void bind_linear_ladder(py::module_& m) {
    bind_linear_pair<NaiveLinear>(m, "_1_naive");
    bind_linear_pair<BlockedLinear>(m, "_2_blocked");
    bind_linear_pair<SimdLinear>(m, "_3_simd");
    bind_linear_pair<AmxLinear, true>(m, "_4_amx");
}
