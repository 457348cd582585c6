// matmul, the entry to GEMM in the type of the arrays: it chooses between gemm.h and few_rows.h, whose bits are the same.
#pragma once

#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/gemm.h"

namespace minillm {

// C (M, N) = A (M, K) @ B (K, N), or C += with `accumulate`; rows of C are `stride` apart. epilogue: see Stage.
template <class T, class Epilogue = NoEpilogue>
void matmul(int64_t M, int64_t N, int64_t K, Matrix<T> A, Matrix<T> B, T* C, int64_t stride, bool accumulate = false,
            const Epilogue& epilogue = Epilogue()) {
    if (M == 0 || N == 0) return;
    if (M > FEW || (A.transposed && B.transposed))
        return packed_gemm(Fma<T>(), M, N, K, A, B, C, stride, accumulate, epilogue);
#pragma omp parallel if (N * K > 1 << 15)
    {
        if (B.transposed) few_rows_transposed<T>(M, N, K, A, B, C, stride, accumulate, epilogue);
        else few_rows<T>(M, N, K, A, B, C, stride, accumulate, epilogue);
    }
}

// The usual ones are compiled once, in matmul.cpp.
#define MATMUL(T, EPILOGUE) \
    template void matmul(int64_t, int64_t, int64_t, Matrix<T>, Matrix<T>, T*, int64_t, bool, const EPILOGUE&)
extern MATMUL(float, NoEpilogue);
extern MATMUL(double, NoEpilogue);
extern MATMUL(float, AddBias<float>);
extern MATMUL(double, AddBias<double>);

}  // namespace minillm
