// matmul_bf16, the entry to GEMM in bfloat16.
#pragma once

#include "cpu/gemm/amx.h"

namespace minillm {

// C (M, N) = A (M, K) @ B (K, N) in bfloat16, or C += with `accumulate`: the best way this machine has. A and B are
// float, and rounded here, or bf16. epilogue: see Stage.
template <class SA, class SB, class Epilogue = NoEpilogue>
void matmul_bf16(int64_t M, int64_t N, int64_t K, Matrix<SA> A, Matrix<SB> B, float* C, int64_t stride,
                 bool accumulate = false, const Epilogue& epilogue = Epilogue()) {
    if (has_amx()) return packed_gemm<AmxTiles>(M, N, K, A, B, C, stride, accumulate, epilogue);
    if (has_dot_instruction()) return dot_gemm<true>(M, N, K, A, B, C, stride, accumulate, epilogue);
    dot_gemm<false>(M, N, K, A, B, C, stride, accumulate, epilogue);
}

// The usual ones are compiled once, in matmul_bf16.cpp.
#define MATMUL_BF16(S, EPILOGUE)                                                                         \
    template void matmul_bf16(int64_t, int64_t, int64_t, Matrix<bf16>, Matrix<S>, float*, int64_t, bool, \
                              const EPILOGUE&)
extern MATMUL_BF16(float, NoEpilogue);
extern MATMUL_BF16(bf16, NoEpilogue);
extern MATMUL_BF16(float, AddBias<float>);
extern MATMUL_BF16(bf16, AddBias<float>);

}  // namespace minillm
