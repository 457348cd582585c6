// How the sums of tensor cores reach the epilogue: 16 rows of a warp's tile at a time, by way of shared memory.
//
// A lane holds pairs of eight rows that lie 8 columns apart. Written from there, every epilogue would be there as often
// as a lane has pairs, for 8 bytes each time. In shared memory they change hands: a lane then has four neighbours, a
// row's lanes 16 bytes each side by side, and the epilogue stands in a loop. A line has 8 numbers more than columns, so
// that the pairs of a half-warp lie in 32 different banks.
#pragma once

#include "cuda/ops/matmul/common.cuh"

namespace minillm::gemm {

template <int COLUMNS>
struct Drain {
    static constexpr int ACROSS = COLUMNS / 4, LINE = COLUMNS + 8, ROOM = 16 * LINE;  // numbers, of each warp
};

// sum: of 16 rows from `row` on, COLUMNS columns from `column` on. room: of this warp alone, and free when it comes
// back.
template <int COLUMNS, class C, class Epilogue>
DEVICE void drain(float* room, const float (&sum)[COLUMNS / 8][4], const Output<C>& out, const Sizes& n,
                  const Epilogue& epilogue, int64_t row, int64_t column) {
    using D = Drain<COLUMNS>;
    const int lane = threadIdx.x % 32;
    UNROLL_FOR (int h = 0; h < 2; h++)
        UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
            store2(room + (8 * h + lane / 4) * D::LINE + 8 * c + lane % 4 * 2,
                   Vec2<float>{sum[c][2 * h], sum[c][2 * h + 1]});
    __syncwarp();
    const int x = lane % D::ACROSS * 4;
    for (int y = lane / D::ACROSS; y < 16; y += 32 / D::ACROSS) {
        const Vec4<float> four = load4(room + y * D::LINE + x);
        float v[4] = {four.x, four.y, four.z, four.w};
        finish(v, out, n, epilogue, row + y, column + x);
    }
    __syncwarp();
}

}  // namespace minillm::gemm
