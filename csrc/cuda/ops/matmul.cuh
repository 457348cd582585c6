// GEMM on the GPU: C (M, N) = epilogue(A (M, K) @ B (K, N)), or C += that.
//
// One template for NN, NT and TN: an operand is a Matrix or a Transposed, and only the way into shared memory differs.
// An epilogue sees the sums while they are in registers (bias, GELU and its slope, the gradient of a softmax), so that
// no pass over memory is needed for it. The steps of the ladder, each a file and a class with the same function:
//
//   Naive   one thread a number                                 matmul/1_naive.cuh      float, double
//   Tiled   tiles in shared memory, sums in registers           matmul/2_tiled.cuh      float, double
//   Mma     the same on tensor cores, with asynchronous copies  matmul/3_mma.cuh        bf16, sums in float
//   Wgmma   Hopper's: copies and matmuls go on by themselves    matmul/4_wgmma.cuh      bf16, sums in float
//
// Each sum has one order, that of k, whatever the tile, the batch or the GPU; on tensor cores long sums of few tiles are
// cut into slices, by the sizes alone (matmul/slices.cuh).
#pragma once

#include "cuda/ops/matmul/1_naive.cuh"
#include "cuda/ops/matmul/2_tiled.cuh"
#include "cuda/ops/matmul/3_mma.cuh"

namespace minillm::gemm {

// Step 4, for operands whose rows TMA can read; compiled for its GPU alone, in matmul_wgmma.cu.
template <bool TA, bool TB, class C, class Epilogue>
void launch_wgmma(const Sizes& n, Matrix<bf16, TA> a, Matrix<bf16, TB> b, Output<C> out, gpu::Stream stream,
                  Epilogue epilogue);

template <class M>
bool tma_reads(const M& m) {
    return m.stride % 8 == 0 && reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
}

// Whatever step 4 cannot do, or the GPU has not, step 3 does. FROM: and so matmuls of fewer tiles of 256 x 128.
template <int64_t FROM>
struct Hopper {
    template <class T>
    using Stored = bf16;

    template <class A, class B, class C, class Epilogue = Plain>
    static void matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue = {}) {
        const int64_t tiles = tiles_of(n.M, 256) * tiles_of(n.N, 128);
        const bool here = n.K && tiles && tma_reads(a) && tma_reads(b) && gpu::capability() == 90;
        const Sizes cut = here ? sliced<A, C, Epilogue>(n, tiles) : n;
        if (!here || tiles * (cut.slice ? tiles_of(n.K, cut.slice) : 1) < FROM)
            return Mma::matmul(n, a, b, out, stream, epilogue);
        const auto start = [&](auto to) { launch_wgmma(cut, a, b, to, stream, epilogue); };
        if constexpr (std::is_same_v<C, float>) {
            if (cut.slice) return in_slices(cut, out, stream, start);
        }
        start(out);
    }
};
using Wgmma = Hopper<1>;
using TensorCores = Hopper<33>;  // the best: fewer tiles would leave most of the 132 SMs without any

// The usual ones are compiled once, in matmul.cu (which is why `matmul` is defined outside of its class: not inline).
#define MATMUL(STEP, S, T, A, B, EPILOGUE) \
    template void STEP::matmul(const Sizes&, A<S>, B<S>, Output<T>, gpu::Stream, EPILOGUE)
#define MATMULS(KIND, STEP, S, T)                        \
    KIND MATMUL(STEP, S, T, Matrix, Matrix, AddBias<T>); \
    KIND MATMUL(STEP, S, T, Matrix, Matrix, Plain);      \
    KIND MATMUL(STEP, S, T, Matrix, Transposed, Plain);  \
    KIND MATMUL(STEP, S, T, Transposed, Matrix, Plain)
MATMULS(extern, Tiled, float, float);
MATMULS(extern, Tiled, double, double);
MATMULS(extern, Mma, bf16, float);

}  // namespace minillm::gemm
