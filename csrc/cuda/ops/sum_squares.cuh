// The sum of squares of a flat buffer, in double. Why: minillm/ops/optimizer/sum_squares.py.
//
//   sum over i of x[i]^2
//
// Step 1, naive: one block walks over all of x, on one of the 132 multiprocessors.
// Step 2: a block for each piece of PIECE numbers, four a load, and a last block that adds up the sums of the pieces. Pieces
// have a fixed size and every sum a fixed order, so the bits are the same on every GPU. Memory-bandwidth bound.
#pragma once

#include "cuda/ops/reduce.cuh"
#include "cuda/ops/threads.cuh"

namespace minillm::sum_squares {
using namespace cuda;
constexpr int BLOCK = 128, WARPS = BLOCK / 32;
constexpr int64_t PIECE = 64 * BLOCK;

// out[block] = the sum of f(i, end) over the block's i: begin + 4 * thread, and on in steps of the whole block.
template <class T>
__global__ void sum_pieces(double* out, const T* x, int64_t piece, int64_t n, bool aligned) {
    SHARED(double, room);
    const int64_t begin = blockIdx.x * piece, end = begin + piece < n ? begin + piece : n;
    Vec4<double> sums = {};
    UNROLL_4_FOR (int64_t i = begin + 4 * threadIdx.x; i < end; i += 4 * BLOCK)
        sums = map4([](double sum, T v) { return sum + double(v) * double(v); }, sums, row_of(x, n, aligned).get(i));
    const double total = block_sum<WARPS>((sums.x + sums.y) + (sums.z + sums.w), room);
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}

template <class T>
__global__ void sum_of_sums(T* out, const T* sums, int64_t n) {
    SHARED(T, room);
    T mine = 0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) mine += sums[i];
    const T total = block_sum<WARPS>(mine, room);
    if (threadIdx.x == 0) *out = total;
}

inline int64_t pieces(int64_t n) { return (n + PIECE - 1) / PIECE; }

// sums: room for one number and one a piece; the first is the result. n > 0.
template <bool NAIVE, class T>
void launch_sum(double* sums, const T* x, int64_t n, stream_t stream) {
    const auto start = [&](double* out, int64_t blocks, int64_t piece) {
        launch(sum_pieces<T>, blocks_for(blocks, 1), BLOCK, WARPS * sizeof(double), stream, out, x, piece, n,
               aligned({x}, n));
    };
    if (NAIVE || pieces(n) == 1) return start(sums, 1, n);
    start(sums + 1, pieces(n), PIECE);
    launch(sum_of_sums<double>, dim3(1), BLOCK, WARPS * sizeof(double), stream, sums, sums + 1, pieces(n));
}
}  // namespace minillm::sum_squares
