// Variant 3, mma: backward, on the tensor cores. The two kernels of variant 2 (see its table of X, Y, U, W) with the
// matmuls, copies and swizzle of variant 3's forward: no atomics, so equal bits in every run. Its cost: S and dP are
// computed twice, 7 matmuls where atomics do with 5.
//
// Up to head size 64 a warp owns 32 rows, so that each ldmatrix of a streamed tile feeds four `mma`s. A head size of
// 256 has too many sums for the registers of a warp: there two warps share 16 rows, both form S and dP, and each
// gathers half of the columns (SPLIT).
#pragma once

#include "cuda/attention/3_mma.cuh"

namespace minillm::attention {
template <int D>
struct MmaBackwardTile {
    static constexpr int SPLIT = D == 256 ? 2 : 1, ROW_WARPS = 4, THREADS = 32 * ROW_WARPS * SPLIT;
    static constexpr int M = D <= 64 ? 2 : 1;                       // 16-row tiles a warp
    static constexpr int ROWS = ROW_WARPS * M * 16;                 // rows a block owns
    static constexpr int COLUMNS = 32;                              // rows of a streamed tile
    static constexpr int WIDTH = D / SPLIT;                         // columns that a warp gathers
    static constexpr size_t SHARED_BYTES =
        2 * (2 * ROWS * D + 4 * COLUMNS * D) + sizeof(float) * 4 * COLUMNS + sizeof(int) * D;
};

// Log-sum-exp and delta of the tile's queries, later. Each is COLUMNS numbers; past the end 0, which nobody uses.
template <int COLUMNS>
DEVICE void load_row_numbers(float* tile, const float* lse, const float* delta, int first, int T) {
    if (threadIdx.x >= 2 * COLUMNS) return;
    const int c = threadIdx.x % COLUMNS, row = first + c;
    const float* from = threadIdx.x < COLUMNS ? lse : delta;
    cp_async<4>(tile + threadIdx.x, row < T ? from + row : from, row < T);
}

template <class E, int D, bool KEYS>
__global__ void __launch_bounds__(MmaBackwardTile<D>::THREADS) mma_backward(Backward<E> a, Sizes n) {
    LAUNCH_BOUNDS(MmaBackwardTile<D>::THREADS);
    using Tile = MmaBackwardTile<D>;
    constexpr int M = Tile::M, COLUMNS = Tile::COLUMNS, ROWS = Tile::ROWS, THREADS = Tile::THREADS, WIDTH = Tile::WIDTH;
    SHARED(E, shared);
    E *X = shared, *Y = X + ROWS * D, *U = Y + ROWS * D, *W = U + 2 * COLUMNS * D;
    float* numbers = reinterpret_cast<float*>(W + 2 * COLUMNS * D);    // two buffers of lse and delta
    int* edge = reinterpret_cast<int*>(numbers + 4 * COLUMNS);
    const int64_t bh = head_of_block();
    if (bh >= n.B * n.NH) return;
    const int r0 = (KEYS ? blockIdx.y : gridDim.y - 1 - blockIdx.y) * ROWS;
    const int warp = threadIdx.x / 32, w0 = warp % Tile::ROW_WARPS * M * 16, d0 = warp / Tile::ROW_WARPS * WIDTH;
    const int first_row = r0 + w0;                                     // of this warp
    const auto u = rows_of(KEYS ? a.q : a.k, bh, n), w = rows_of(KEYS ? a.dout : a.v, bh, n);
    const float *lse = a.lse + bh * n.T, *delta = a.delta + bh * n.T;
    const float scale2 = float(n.scale) * LOG2E;
    const auto load_streamed = [&](int c0) {                           // into the buffer that is this tile's turn
        const int buffer = c0 / COLUMNS % 2;
        load_async<COLUMNS, D, THREADS>(U + buffer * COLUMNS * D, u, c0, n);
        load_async<COLUMNS, D, THREADS>(W + buffer * COLUMNS * D, w, c0, n);
        if (KEYS) load_row_numbers<COLUMNS>(numbers + buffer * 2 * COLUMNS, lse, delta, c0, n.T);
    };

    float own[M][2][2];  // lse and delta of the owned rows, if those are queries
    for (int i = 0; i < M; i++)
        for (int h = 0; h < 2; h++) {
            const int row = first_row + 16 * i + lane_row(2 * h);
            own[i][h][0] = !KEYS && row < n.T ? lse[row] : 0;
            own[i][h][1] = !KEYS && row < n.T ? delta[row] : 0;
        }
    float g[M][WIDTH / 8][4] = {}, dv[KEYS ? M : 1][KEYS ? WIDTH / 8 : 1][4] = {};     // g: dK or dQ
    const int begin = KEYS && n.causal ? r0 / COLUMNS * COLUMNS : 0;
    const int end = !KEYS && n.causal && r0 + ROWS < n.T ? r0 + ROWS : n.T;
    load_async<ROWS, D, THREADS>(X, rows_of(KEYS ? a.k : a.q, bh, n), r0, n);
    load_async<ROWS, D, THREADS>(Y, rows_of(KEYS ? a.v : a.dout, bh, n), r0, n);
    load_streamed(begin);
    cp_async_commit();
    for (int c0 = begin; c0 < end; c0 += COLUMNS) {
        const int buffer = c0 / COLUMNS % 2;
        E *U_now = U + buffer * COLUMNS * D, *W_now = W + buffer * COLUMNS * D;
        const float* now = numbers + buffer * 2 * COLUMNS;
        cp_async_wait<0>();
        __syncthreads();                                               // this tile is there, the one before is free
        if (c0 + COLUMNS < end) load_streamed(c0 + COLUMNS);
        cp_async_commit();

        float s[M][COLUMNS / 8][4] = {}, ds[M][COLUMNS / 8][4] = {};
        mma_nt<E, D, M, COLUMNS>(s, X, w0, U_now);
        mma_nt<E, D, M, COLUMNS>(ds, Y, w0, W_now);                // dP, for now
        UNROLL_FOR (int i = 0; i < M; i++)
            UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
                UNROLL_FOR (int e = 0; e < 4; e++) {
                    const int column = 8 * c + lane_column(e);
                    const float row_lse = KEYS ? now[column] : own[i][e / 2][0];
                    const float row_delta = KEYS ? now[COLUMNS + column] : own[i][e / 2][1];
                    s[i][c][e] = exp2_fast(s[i][c][e] * scale2 - row_lse * LOG2E);     // P
                    ds[i][c][e] = s[i][c][e] * (ds[i][c][e] - row_delta);
                }
        const bool all_seen = c0 + COLUMNS <= n.T && first_row + 16 * M <= n.T &&
                              (!n.causal || (KEYS ? c0 >= first_row + 16 * M - 1 : c0 + COLUMNS <= first_row + 1));
        if (!all_seen) {
            UNROLL_FOR (int i = 0; i < M; i++)
                UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
                    UNROLL_FOR (int e = 0; e < 4; e++) {
                        const int owned = first_row + 16 * i + lane_row(e), column = c0 + 8 * c + lane_column(e);
                        if (!(KEYS ? is_seen(column, owned, n) : is_seen(owned, column, n)))
                            s[i][c][e] = ds[i][c][e] = 0;
                    }
        }
        const bool diagonal = n.causal && (KEYS ? c0 < r0 + ROWS - 1 : c0 + COLUMNS > r0 + 1);
        if constexpr (KEYS) {
            if (diagonal) quarantine<E, D, M, COLUMNS, WIDTH, THREADS, false>(dv, W_now, edge, c0, first_row, d0);
            mma_nn<E, D, M, COLUMNS, WIDTH>(dv, s, W_now, d0);     // dV += P^T dout
        }
        if (diagonal) quarantine<E, D, M, COLUMNS, WIDTH, THREADS, !KEYS>(g, U_now, edge, c0, first_row, d0);
        mma_nn<E, D, M, COLUMNS, WIDTH>(g, ds, U_now, d0);         // dK += dS^T Q, or dQ += dS K
    }

    UNROLL_FOR (int i = 0; i < M; i++)
        UNROLL_FOR (int h = 0; h < 2; h++) {
            const int row = first_row + 16 * i + lane_row(2 * h);
            if (row >= n.T) continue;
            store_pairs<E, WIDTH>(rows_of(KEYS ? a.dk : a.dq, bh, n), row, g[i], h, float(n.scale), d0, n);
            if constexpr (KEYS) store_pairs<E, WIDTH>(rows_of(a.dv, bh, n), row, dv[i], h, 1.0f, d0, n);
        }
}
}  // namespace minillm::attention
