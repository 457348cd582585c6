// Variant 3, mma: the tensor cores of Ampere and later. bfloat16 or float16 in and out, sums in float32. Forward.
//
// A warp owns M tiles of 16 query rows (32 rows up to head size 128). One instruction, `mma`, multiplies a 16 x 16
// by a 16 x 8 matrix that the 32 lanes hold together: with g = lane / 4 and t = lane % 4, lane (g, t) holds of the 16
// x 8 result the elements (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). So a row lies in four lanes, two shuffles give
// its maximum; and as the result of S = Q K^T has just the layout that an operand of P V must have, S and P never
// leave the registers (Dao 2023, arXiv 2307.08691).
//
// K and V come by asynchronous copies (cp_async) into two buffers in turn: while tile t is used, tile t + 1 is on its
// way. One barrier a tile does both: after it, tile t is there for all warps, and no warp still reads tile t - 1,
// whose buffer the next copies fill. Shared memory has 32 banks of 4 bytes; `ldmatrix` reads 8 rows of 16 bytes at
// once, which must lie in different groups of banks, so 16-byte chunk c of row r is stored at place c ^ f(r) (a
// swizzle) and no byte is wasted.
//
// The exponentials are taken in base 2, which the hardware has: P = 2^(S * scale * log2(e) - top).
#pragma once

#include "cuda/attention/common.cuh"

namespace minillm::attention {
constexpr float LOG2E = 1.44269504f;

template <int D>
struct MmaForwardTile {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS;
    static constexpr int M = D <= 128 ? 2 : 1;                      // 16-row tiles a warp
    static constexpr int ROWS = WARPS * M * 16;                     // query rows a block
    static constexpr int COLUMNS = D <= 64 ? 64 : 32;               // keys a tile
    static constexpr size_t SHARED_BYTES = 2 * (ROWS * D + 4 * COLUMNS * D) + sizeof(int) * D;
};

// Where chunk c (8 numbers) of row r lies in a tile of rows of D numbers.
template <int D>
DEVICE int place(int r, int c) {
    constexpr int CHUNKS = D / 8, ROWS_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1, MASK = (CHUNKS < 8 ? CHUNKS : 8) - 1;
    return r * D + (c ^ (r / ROWS_A_LINE & MASK)) * 8;
}

// tile[r] = rows[first + r], later; zero past the last row, since 0 * NaN is not 0, and past HS (a multiple of 8).
template <int ROWS, int D, int THREADS, class E>
DEVICE void load_async(E* tile, Rows<const E> rows, int first, const Sizes& n) {
    UNROLL_FOR (int i = threadIdx.x; i < ROWS * D / 8; i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8);
        const bool inside = first + r < n.T && c * 8 < n.HS;
        cp_async<16>(tile + place<D>(r, c), inside ? rows[first + r] + c * 8 : rows.data, inside);
    }
}

// Row and column of element e of this lane's part of a 16 x 8 result.
DEVICE int lane_row(int e) { return threadIdx.x % 32 / 4 + e / 2 * 8; }
DEVICE int lane_column(int e) { return threadIdx.x % 4 * 2 + e % 2; }

// s[i] += A[16 rows at a0 + 16 i] @ B[COLUMNS rows]^T along D; both are tiles in shared memory.
template <class E, int D, int M, int COLUMNS>
DEVICE void mma_nt(float (&s)[M][COLUMNS / 8][4], const E* A, int a0, const E* B) {
    const int lane = threadIdx.x % 32;
    UNROLL_FOR (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4];
        UNROLL_FOR (int i = 0; i < M; i++) ldmatrix(a[i], A + place<D>(a0 + 16 * i + lane % 16, 2 * k + lane / 16));
        UNROLL_FOR (int c = 0; c < COLUMNS / 16; c++) {
            uint32_t b[4];
            ldmatrix(b, B + place<D>(16 * c + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
            UNROLL_FOR (int i = 0; i < M; i++) {
                mma<E>(s[i][2 * c], a[i], b[0], b[1]);
                mma<E>(s[i][2 * c + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// out[i] += P[i] @ B[COLUMNS rows, WIDTH columns from d0]; P lies in registers, as mma_nt left it.
template <class E, int D, int M, int COLUMNS, int WIDTH>
DEVICE void mma_nn(float (&out)[M][WIDTH / 8][4], const float (&p)[M][COLUMNS / 8][4], const E* B, int d0) {
    const int lane = threadIdx.x % 32;
    UNROLL_FOR (int k = 0; k < COLUMNS / 16; k++) {
        uint32_t a[M][4];
        UNROLL_FOR (int i = 0; i < M; i++)
            UNROLL_FOR (int r = 0; r < 4; r++)
                a[i][r] = pack<E>(p[i][2 * k + r / 2][r % 2 * 2], p[i][2 * k + r / 2][r % 2 * 2 + 1]);
        UNROLL_FOR (int c = 0; c < WIDTH / 16; c++) {
            uint32_t b[4];
            ldmatrix_t(b, B + place<D>(16 * k + lane % 16, d0 / 8 + 2 * c + lane / 16));
            UNROLL_FOR (int i = 0; i < M; i++) {
                mma<E>(out[i][2 * c], a[i], b[0], b[1]);
                mma<E>(out[i][2 * c + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// A NaN or infinity in a row of the tile that only some of the block's rows see would reach the others through the
// matmul, since 0 * NaN is NaN. On the diagonal, therefore: if there is any, make NaN of the sums that do see it, and
// put 0 in its place. LATER says who sees tile row c: the owned rows from c on, or (false) those up to c. `first_row`:
// this lane's warp begins there; `edge`: room for D numbers.
template <class E, int D, int M, int COLUMNS, int WIDTH, int THREADS, bool LATER>
DEVICE void quarantine(float (&out)[M][WIDTH / 8][4], E* tile, int* edge, int c0, int first_row, int d0) {
    bool any = false;
    for (int i = threadIdx.x; i < COLUMNS * D; i += THREADS) any |= !isfinite(float(tile[i]));
    if (!__syncthreads_or(any)) return;
    for (int d = threadIdx.x; d < D; d += THREADS) {
        edge[d] = LATER ? 0x7fffffff : -1;
        for (int c = 0; c < COLUMNS; c++) {
            E& x = tile[place<D>(c, d / 8) + d % 8];
            if (isfinite(float(x))) continue;
            edge[d] = LATER ? min(edge[d], c0 + c) : c0 + c;
            x = E(0.0f);
        }
    }
    __syncthreads();
    UNROLL_FOR (int i = 0; i < M; i++)
        UNROLL_FOR (int c = 0; c < WIDTH / 8; c++)
            UNROLL_FOR (int e = 0; e < 4; e++) {
                const int row = first_row + 16 * i + lane_row(e), at = edge[d0 + 8 * c + lane_column(e)];
                if (LATER ? row >= at : row <= at) out[i][c][e] = NAN;
            }
}

// rows[row][d] = x * factor for this lane's pairs of columns.
template <class E, int WIDTH>
DEVICE void store_pairs(Rows<E> rows, int row, const float (&x)[WIDTH / 8][4], int half, float factor, int d0,
                        const Sizes& n) {
    UNROLL_FOR (int c = 0; c < WIDTH / 8; c++) {
        const int d = d0 + 8 * c + lane_column(0);
        if (d < n.HS)
            *reinterpret_cast<uint32_t*>(rows[row] + d) = pack<E>(x[c][2 * half] * factor, x[c][2 * half + 1] * factor);
    }
}

template <class E, int D>
__global__ void __launch_bounds__(MmaForwardTile<D>::THREADS) mma_forward(Forward<E> a, Sizes n) {
    LAUNCH_BOUNDS(MmaForwardTile<D>::THREADS);
    using Tile = MmaForwardTile<D>;
    constexpr int M = Tile::M, COLUMNS = Tile::COLUMNS, ROWS = Tile::ROWS, THREADS = Tile::THREADS;
    SHARED(E, shared);
    E *Q = shared, *K = Q + ROWS * D, *V = K + 2 * COLUMNS * D;
    int* edge = reinterpret_cast<int*>(V + 2 * COLUMNS * D);
    const int64_t bh = head_of_block();
    if (bh >= n.B * n.NH) return;
    const int r0 = (gridDim.y - 1 - blockIdx.y) * ROWS;                // the last rows see most: they start first
    const int w0 = threadIdx.x / 32 * M * 16, first_row = r0 + w0;     // of this warp
    const auto k = rows_of(a.k, bh, n), v = rows_of(a.v, bh, n);
    const float scale2 = float(n.scale) * LOG2E;

    float out[M][D / 8][4] = {}, top[M][2], total[M][2] = {};          // [2]: rows g and g + 8
    for (int i = 0; i < M; i++) top[i][0] = top[i][1] = -INFINITY;
    const int end = n.causal && r0 + ROWS < n.T ? r0 + ROWS : n.T;
    load_async<ROWS, D, THREADS>(Q, rows_of(a.q, bh, n), r0, n);
    load_async<COLUMNS, D, THREADS>(K, k, 0, n);
    load_async<COLUMNS, D, THREADS>(V, v, 0, n);
    cp_async_commit();
    for (int c0 = 0; c0 < end; c0 += COLUMNS) {
        E *K_now = K + c0 / COLUMNS % 2 * COLUMNS * D, *V_now = V + c0 / COLUMNS % 2 * COLUMNS * D;
        cp_async_wait<0>();  // my copies of this tile have landed,
        __syncthreads();  // everybody's have, and the tile before is free
        if (c0 + COLUMNS < end) {
            load_async<COLUMNS, D, THREADS>(K + (c0 / COLUMNS + 1) % 2 * COLUMNS * D, k, c0 + COLUMNS, n);
            load_async<COLUMNS, D, THREADS>(V + (c0 / COLUMNS + 1) % 2 * COLUMNS * D, v, c0 + COLUMNS, n);
        }
        cp_async_commit();

        float s[M][COLUMNS / 8][4] = {};
        mma_nt<E, D, M, COLUMNS>(s, Q, w0, K_now);
        if (c0 + COLUMNS > n.T || (n.causal && c0 + COLUMNS > first_row + 1)) {  // else all rows see all columns
            UNROLL_FOR (int i = 0; i < M; i++)
                UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
                    UNROLL_FOR (int e = 0; e < 4; e++)
                        if (!is_seen(first_row + 16 * i + lane_row(e), c0 + 8 * c + lane_column(e), n))
                            s[i][c][e] = -INFINITY;
        }
        UNROLL_FOR (int i = 0; i < M; i++)
            UNROLL_FOR (int h = 0; h < 2; h++) {
                float new_top = top[i][h], sum = 0;
                UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
                    new_top = max(new_top, max(s[i][c][2 * h], s[i][c][2 * h + 1]));
                new_top = lanes_max<4>(new_top);
                const float base = new_top == -INFINITY ? 0.0f : new_top * scale2;
                const float shrink = shrink_of(top[i][h], new_top, scale2);
                UNROLL_FOR (int c = 0; c < COLUMNS / 8; c++)
                    UNROLL_FOR (int e = 2 * h; e < 2 * h + 2; e++)
                        sum += s[i][c][e] = exp2_fast(s[i][c][e] * scale2 - base);
                total[i][h] = total[i][h] * shrink + sum;  // this lane's share; added up at the end
                top[i][h] = new_top;
                UNROLL_FOR (int c = 0; c < D / 8; c++) {
                    out[i][c][2 * h] *= shrink;
                    out[i][c][2 * h + 1] *= shrink;
                }
            }
        if (n.causal && c0 + COLUMNS > r0 + 1)
            quarantine<E, D, M, COLUMNS, D, THREADS, true>(out, V_now, edge, c0, first_row, 0);
        mma_nn<E, D, M, COLUMNS, D>(out, s, V_now, 0);
    }

    UNROLL_FOR (int i = 0; i < M; i++)
        UNROLL_FOR (int h = 0; h < 2; h++) {
            const float sum = lanes_sum<4>(total[i][h]);
            const int row = first_row + 16 * i + lane_row(2 * h);
            if (row >= n.T) continue;
            store_pairs<E, D>(rows_of(a.out, bh, n), row, out[i], h, 1 / sum, 0, n);
            if (threadIdx.x % 4 == 0) a.lse[bh * n.T + row] = top[i][h] * float(n.scale) + log(sum);
        }
}
}  // namespace minillm::attention
