// Step 2 of the ladder (ladder.h): blocks of 64 in k and 512 in n: 128 KB of B in float. The inner loop adds a multiple of a
// row of B to a row of C.
#include "cpu/linear/ladder.h"

namespace minillm::linear {

struct Blocked {
    template <class T>
    static void add_multiple(T* c, T a, const T* b, int64_t n) {  // the compiler makes vectors of it
        for (int64_t i = 0; i < n; i++) c[i] += a * b[i];
    }

    template <class T>
    static void matmul(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
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

template <class T>
using BlockedLinear = StepLayer<Blocked, T>;
const Variant<BlockedLinear> registered("_2_blocked");

}  // namespace minillm::linear
