// Sums over the lanes of a warp and the warps of a block: one order each, so the same bits every time.
#pragma once

#include "cuda/gpu/gpu.h"

namespace minillm::cuda {
// Every lane gets the sum: five exchanges with the lane 16, 8, 4, 2 and 1 places away.
template <class T>
DEVICE T warp_sum(T x) {
    UNROLL_FOR (int step = 16; step; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

// Every thread of a block of WARPS warps gets the sum; all of them must come here. room: WARPS numbers, shared.
template <int WARPS, class T>
DEVICE T block_sum(T x, T* room) {
    x = warp_sum(x);
    if (WARPS == 1) return x;
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
    UNROLL_FOR (int warp = 0; warp < WARPS; warp++) total += room[warp];
    __syncthreads();                        // before the next sum writes there
    return total;
}

// ---- sums over rows: of up to two arrays that lie side by side, such as the parts of dweight and dbias ----

template <class T>
struct ColumnSums {
    const T* parts;                         // (count, pitch)
    int64_t count, pitch, columns;
    T* out[2];                              // null: not wanted
    bool add;                               // to what `out` holds
    int64_t apart;                          // of the arrays in `parts`
};

// A block has 32 columns: its warps take the rows in turn, and the first adds up what they have. Grid: columns, arrays.
template <class T>
__global__ void column_sums(ColumnSums<T> a) {
    SHARED(T, room);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int64_t c = int64_t(blockIdx.x) * 32 + lane;
    const T* parts = a.parts + blockIdx.y * a.apart;
    T total = 0;
    if (c < a.columns)
        for (int64_t p = warp; p < a.count; p += warps) total += parts[p * a.pitch + c];
    room[threadIdx.x] = total;
    __syncthreads();
    T* out = a.out[blockIdx.y];
    if (warp || c >= a.columns || !out) return;
    for (int other = 1; other < warps; other++) total += room[32 * other + lane];
    out[c] = a.add ? out[c] + total : total;
}

template <class T>
void run_column_sums(const ColumnSums<T>& a, stream_t stream) {
    if (!a.columns || !(a.out[0] || a.out[1])) return;
    const int64_t quarter = (a.count + 3) / 4;
    const int warps = quarter < 1 ? 1 : quarter > 16 ? 16 : int(quarter);
    launch(column_sums<T>, dim3(unsigned((a.columns + 31) / 32), a.out[1] ? 2 : 1), 32 * warps, 32 * warps * sizeof(T),
           stream, a);
}
}  // namespace minillm::cuda
