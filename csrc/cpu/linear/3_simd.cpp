// Step 3 of the ladder (ladder.h): 4 rows x 2 vectors of C are summed in registers over all of k: 6 loads for 8
// multiply-adds, where step 2 has two loads and a store for each. The 2 vectors of columns of B are first copied side by
// side: as rows far apart in memory they would fight for the same few places in the cache. Parallel over these strips of
// columns.
#include "cpu/linear/ladder.h"

namespace minillm::linear {

struct Simd {
    template <int ROWS, class T>
    static void tile(T* C, const T* A, int64_t stride, const T* strip, int64_t N, int64_t K, int64_t columns) {
        constexpr int64_t W = WIDTH<T>;
        Vec<T> sum[ROWS][2] = {};
        for (int64_t k = 0; k < K; k++) {
            Vec<T> b0 = load(strip + 2 * W * k), b1 = load(strip + 2 * W * k + W);
            UNROLL_FOR (int i = 0; i < ROWS; i++) {
                sum[i][0] += A[i * stride + k] * b0;
                sum[i][1] += A[i * stride + k] * b1;
            }
        }
        UNROLL_FOR (int i = 0; i < ROWS; i++) {
            store_part(C + i * N, sum[i][0], std::min(W, columns));
            if (columns > W) store_part(C + i * N + W, sum[i][1], columns - W);
        }
    }

    template <class T>
    static void matmul(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
        constexpr int64_t WIDE = 2 * WIDTH<T>;
        auto a = straightened(A, M, K);
#pragma omp parallel for
        for (int64_t n = 0; n < N; n += WIDE) {
            int64_t columns = std::min(WIDE, N - n), m = 0;
            std::vector<T> strip(K * WIDE);  // (K, WIDE), zeros past the last column
            for (int64_t k = 0; k < K; k++)
                for (int64_t j = 0; j < columns; j++) strip[k * WIDE + j] = *B.from(k, n + j).data;
            for (; m + 4 <= M; m += 4) tile<4>(C + m * N + n, A.from(m, 0).data, A.stride, strip.data(), N, K, columns);
            for (; m < M; m++) tile<1>(C + m * N + n, A.from(m, 0).data, A.stride, strip.data(), N, K, columns);
        }
    }
};

template <class T>
using SimdLinear = StepLayer<Simd, T>;
const Variant<SimdLinear> registered("_3_simd");

}  // namespace minillm::linear
