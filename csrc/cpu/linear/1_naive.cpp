// Step 1 of the ladder (ladder.h): C[m, n] = sum over k of A[m, k] * B[k, n]. Neighbours in k of B are a row apart: each
// lies in another cache line. Parallel over rows of C, as the next.
#include "cpu/linear/ladder.h"

namespace minillm::linear {

struct Naive {
    template <class T>
    static void matmul(T* C, Matrix<T> A, Matrix<T> B, int64_t M, int64_t N, int64_t K) {
#pragma omp parallel for
        for (int64_t m = 0; m < M; m++)
            for (int64_t n = 0; n < N; n++) {
                T sum = 0;
                for (int64_t k = 0; k < K; k++) sum += *A.from(m, k).data * *B.from(k, n).data;
                C[m * N + n] = sum;
            }
    }
};

template <class T>
using NaiveLinear = StepLayer<Naive, T>;
const Variant<NaiveLinear> registered("_1_naive");

}  // namespace minillm::linear
