// matmul_bf16, the entry to GEMM in bfloat16.
#pragma once

#include "cpu/gemm/amx.h"

namespace minillm {

// C (M, N) = A (M, K) @ B (K, N) in bfloat16, or C += with `accumulate`: the best way this machine has. epilogue: see Stage.
template <class Epilogue = NoEpilogue>
void matmul_bf16(int64_t M, int64_t N, int64_t K, const Operand& A, const Operand& B, float* C, int64_t stride,
                 bool accumulate = false, const Epilogue& epilogue = Epilogue()) {
    if (has_amx()) return packed_gemm(AmxTiles(), M, N, K, A, B, C, stride, accumulate, epilogue);
    dot_gemm(Dot(), M, N, K, A, B, C, stride, accumulate, epilogue);
}

// The usual ones are compiled once, in matmul_bf16.cpp.
#define MATMUL_BF16(EPILOGUE)                                                                                   \
    template void matmul_bf16(int64_t, int64_t, int64_t, const Operand&, const Operand&, float*, int64_t, bool, \
                              const EPILOGUE&)
extern MATMUL_BF16(NoEpilogue);
extern MATMUL_BF16(AddBias<float>);

}  // namespace minillm
