// Variant 2, flash: tiles in shared memory (Dao et al. 2022, arXiv 2205.14135). float32 or float64.
//
// A block of 256 threads owns `rows` query rows. K and V stream through shared memory, `columns` rows at a time, and
// each is used by all rows of the block. The threads form a 16 x 16 grid: thread (ty, tx) holds rows ty*R .. ty*R +
// R-1 and columns tx, tx + 16, ... of every matmul, so a row is spread over 16 neighbouring lanes and its maximum and
// sum are four shuffles away. The softmax is online, as in variant 1, but shrinks once a tile instead of once a
// column.
//
//   for each tile of keys:    S = Q K^T    mask    P = exp(S - top)    out = out * shrink + P V
//
// Backward (two kernels, no atomics, so equal bits in every run): P is rebuilt from the log-sum-exp of each row. A
// block of the first kernel owns rows of keys and gathers dK and dV over the queries; of the second, rows of queries
// and gathers dQ over the keys. Both are one template: with (X, Y) the owned pair and (U, W) the streamed pair of
// arrays,
//
//               owned X, Y    streamed U, W    matmul 1          matmul 2          gathers
//   KEYS        K, V          Q, dout          S^T  = X U^T      dP^T = Y W^T       dV += P^T W,  dK += dS^T U
//   otherwise   Q, dout       K, V             S    = X U^T      dP   = Y W^T       dQ += dS U
//
// What is left to gain: the matmuls run on the plain float units. Variant 3 runs them on the tensor cores.
#pragma once

#include "cuda/attention/common.cuh"

namespace minillm::attention {
// Sizes of the tiles for heads of D numbers: such that the backward's five tiles fit into the 163 KB of an sm_80
// block. Where a block has less (99 KB on 8.6, 8.9 and 12.0), launch.cu takes variant 1 for what does not fit.
template <class T, int D>
struct FlashTile {
    static constexpr int BYTES = sizeof(T) * D;
    static constexpr int R = BYTES <= 512 ? 4 : BYTES <= 1024 ? 2 : 1;              // rows a thread
    static constexpr int ROWS = 16 * R;                                             // rows a block owns
    static constexpr int COLUMNS = BYTES <= 256 ? 64 : BYTES <= 1024 ? 32 : 16;     // rows of a streamed tile
    static constexpr int PITCH = D + 4;  // numbers from row to row: 4 more, so that rows start in other banks
    static constexpr int S_PITCH = COLUMNS + 4;
    static constexpr size_t FORWARD = sizeof(T) * (ROWS * PITCH + 2 * COLUMNS * PITCH + ROWS * S_PITCH);
    static constexpr size_t BACKWARD = sizeof(T) * (2 * ROWS * PITCH + 2 * COLUMNS * PITCH + ROWS * S_PITCH);
};
constexpr int FLASH_THREADS = 256;

// Can rows be read four numbers at a time?
template <class T>
DEVICE bool by_four(Rows<const T> rows, int HS) {
    return HS % 4 == 0 && rows.stride % 4 == 0 && reinterpret_cast<uintptr_t>(rows.data) % alignof(Vec4<T>) == 0;
}

// tile[r][d] = rows[first + r][d]; zero past the last of n.T + past rows, since 0 * NaN is not 0, and past HS.
template <int ROWS, int D, class T>
DEVICE void load_tile(T* tile, Rows<const T> rows, int first, const Sizes& n, int past = 0) {
    const bool fast = by_four(rows, n.HS);
    for (int i = threadIdx.x; i < ROWS * D / 4; i += FLASH_THREADS) {
        const int r = i / (D / 4), d = i % (D / 4) * 4;
        Vec4<T> x = {0, 0, 0, 0};
        if (first + r < n.T + past && d < n.HS) {
            const T* from = rows[first + r] + d;
            if (fast) x = load4(from);
            else
                x = {from[0], d + 1 < n.HS ? from[1] : T(0), d + 2 < n.HS ? from[2] : T(0),
                     d + 3 < n.HS ? from[3] : T(0)};
        }
        store4(tile + r * FlashTile<T, D>::PITCH + d, x);
    }
}

// c[i][j] += sum_d A[ty*R + i][d] * B[tx + 16*j][d], rows of both PITCH apart
template <int D, int PITCH, int R, int NJ, class T>
DEVICE void matmul_nt(T (&c)[R][NJ], const T* A, const T* B, int ty, int tx) {
    UNROLL_4_FOR (int d = 0; d < D; d += 4) {
        Vec4<T> a[R];
        UNROLL_FOR (int i = 0; i < R; i++) a[i] = load4(A + (ty * R + i) * PITCH + d);
        UNROLL_FOR (int j = 0; j < NJ; j++) {
            const Vec4<T> b = load4(B + (tx + 16 * j) * PITCH + d);
            UNROLL_FOR (int i = 0; i < R; i++) c[i][j] += a[i].x * b.x + a[i].y * b.y + a[i].z * b.z + a[i].w * b.w;
        }
    }
}

// c[i][j] += sum_k P[ty*R + i][k] * B[k][tx + 16*j], only over the k that `seen(i, k)` admits: the P of others is 0,
// but 0 * NaN is NaN, and a NaN in the future must not reach the past.
template <int K, int P_PITCH, int PITCH, int R, int NJ, class T, class Seen>
DEVICE void matmul_nn(T (&c)[R][NJ], const T* P, const T* B, int ty, int tx, Seen seen) {
    for (int k = 0; k < K; k += 4) {
        Vec4<T> p[R];
        UNROLL_FOR (int i = 0; i < R; i++) p[i] = load4(P + (ty * R + i) * P_PITCH + k);
        UNROLL_FOR (int j = 0; j < NJ; j++) {
            const T* b = B + k * PITCH + tx + 16 * j;
            UNROLL_FOR (int i = 0; i < R; i++) {
                c[i][j] += p[i].x * (seen(i, k) ? b[0] : T(0)) + p[i].y * (seen(i, k + 1) ? b[PITCH] : T(0)) +
                           p[i].z * (seen(i, k + 2) ? b[2 * PITCH] : T(0)) +
                           p[i].w * (seen(i, k + 3) ? b[3 * PITCH] : T(0));
            }
        }
    }
}

template <class T, int D>
__global__ void __launch_bounds__(FLASH_THREADS) flash_forward(Forward<T> a, Sizes n) {
    LAUNCH_BOUNDS(FLASH_THREADS);
    using Tile = FlashTile<T, D>;
    constexpr int R = Tile::R, COLUMNS = Tile::COLUMNS, PITCH = Tile::PITCH, S_PITCH = Tile::S_PITCH;
    SHARED(T, shared);
    T *Q = shared, *K = Q + Tile::ROWS * PITCH, *V = K + COLUMNS * PITCH, *S = V + COLUMNS * PITCH;
    const int64_t bh = blockIdx.x;
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    const int r0 = (gridDim.y - 1 - blockIdx.y) * Tile::ROWS;          // the last rows see most: they start first
    const auto k = shared_rows_of(a.k, bh, n), v = shared_rows_of(a.v, bh, n);
    const T scale = n.scale;

    T out[R][D / 16] = {}, top[R], total[R] = {};
    for (int i = 0; i < R; i++) {
        top[i] = a.sinks ? a.sinks[bh % n.NH] : T(-INFINITY);
        total[i] = a.sinks ? 1 : 0;
    }
    load_tile<Tile::ROWS, D>(Q, rows_of(a.q, bh, n), r0, n);
    const int end = n.past + (n.causal && r0 + Tile::ROWS < n.T ? r0 + Tile::ROWS : n.T);
    for (int c0 = first_key(r0, n) / COLUMNS * COLUMNS; c0 < end; c0 += COLUMNS) {
        __syncthreads();                                               // nobody reads the previous tiles any more
        load_tile<COLUMNS, D>(K, k, c0, n, n.past);
        load_tile<COLUMNS, D>(V, v, c0, n, n.past);
        __syncthreads();

        T s[R][COLUMNS / 16] = {};
        matmul_nt<D, PITCH>(s, Q, K, ty, tx);
        UNROLL_FOR (int i = 0; i < R; i++) {
            const int row = r0 + ty * R + i;
            T new_top = top[i], sum = 0;
            UNROLL_FOR (int j = 0; j < COLUMNS / 16; j++) {
                s[i][j] = sees(row, c0 + tx + 16 * j, n) ? capped(s[i][j] * scale, n) : T(-INFINITY);
                new_top = max(new_top, s[i][j]);
            }
            new_top = lanes_max<16>(new_top);
            const T base = new_top == T(-INFINITY) ? T(0) : new_top, shrink = exp(top[i] - base);
            UNROLL_FOR (int j = 0; j < COLUMNS / 16; j++)
                sum += S[(ty * R + i) * S_PITCH + tx + 16 * j] = exp(s[i][j] - base);
            total[i] = total[i] * shrink + lanes_sum<16>(sum);
            top[i] = new_top;
            UNROLL_FOR (int j = 0; j < D / 16; j++) out[i][j] *= shrink;
        }
        __syncwarp();                                                  // a row of S is written and read by one warp
        const bool whole = (!n.causal || c0 + COLUMNS <= r0 + n.past + 1) &&     // every row sees every column
                           first_key(r0 + Tile::ROWS - 1, n) <= c0;
        if (whole) matmul_nn<COLUMNS, S_PITCH, PITCH>(out, S, V, ty, tx, [](int, int) { return true; });
        else
            matmul_nn<COLUMNS, S_PITCH, PITCH>(out, S, V, ty, tx,
                                               [&](int i, int s) { return sees(r0 + ty * R + i, c0 + s, n); });
    }

    UNROLL_FOR (int i = 0; i < R; i++) {
        const int row = r0 + ty * R + i;
        if (row >= n.T) continue;
        UNROLL_FOR (int j = 0; j < D / 16; j++)
            if (tx + 16 * j < n.HS) rows_of(a.out, bh, n)[row][tx + 16 * j] = out[i][j] / total[i];
        if (a.lse && tx == 0) a.lse[bh * n.T + row] = top[i] + log(total[i]);
    }
}

template <class T, int D, bool KEYS>
__global__ void __launch_bounds__(FLASH_THREADS) flash_backward(Backward<T> a, Sizes n) {
    LAUNCH_BOUNDS(FLASH_THREADS);
    using Tile = FlashTile<T, D>;
    constexpr int R = Tile::R, COLUMNS = Tile::COLUMNS, PITCH = Tile::PITCH, S_PITCH = Tile::S_PITCH;
    SHARED(T, shared);
    T *X = shared, *Y = X + Tile::ROWS * PITCH, *U = Y + Tile::ROWS * PITCH, *W = U + COLUMNS * PITCH,
      *S = W + COLUMNS * PITCH;
    const int64_t first = KEYS ? int64_t(blockIdx.x) * n.group : blockIdx.x;       // of the heads that it walks over
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    const int r0 = (KEYS ? blockIdx.y : gridDim.y - 1 - blockIdx.y) * Tile::ROWS;
    const T scale = n.scale;
    const auto seen = [&](int i, int c) {  // i and c count from ty*R and the tile's start
        const int owned = r0 + ty * R + i;
        return KEYS ? sees(c, owned, n) : sees(owned, c, n);
    };

    T g[R][D / 16] = {}, dv[R][KEYS ? D / 16 : 1] = {};  // g: dK or dQ
    load_tile<Tile::ROWS, D>(X, KEYS ? shared_rows_of(a.k, first, n) : rows_of(a.q, first, n), r0, n);
    load_tile<Tile::ROWS, D>(Y, KEYS ? shared_rows_of(a.v, first, n) : rows_of(a.dout, first, n), r0, n);
    const int begin = !KEYS ? first_key(r0, n) / COLUMNS * COLUMNS : n.causal ? r0 / COLUMNS * COLUMNS : 0;
    const int end = KEYS                                ? queries_end(r0 + Tile::ROWS - 1, n)
                    : n.causal && r0 + Tile::ROWS < n.T ? r0 + Tile::ROWS
                                                        : n.T;
    for (int64_t bh = first; bh < first + (KEYS ? n.group : 1); bh++) {
        const auto u = KEYS ? rows_of(a.q, bh, n) : shared_rows_of(a.k, bh, n),
                   w = KEYS ? rows_of(a.dout, bh, n) : shared_rows_of(a.v, bh, n);
        const T *lse = a.lse + bh * n.T, *delta = a.delta + bh * n.T;
        for (int c0 = begin; c0 < end; c0 += COLUMNS) {
            __syncthreads();
            load_tile<COLUMNS, D>(U, u, c0, n);
            load_tile<COLUMNS, D>(W, w, c0, n);
            __syncthreads();

            T s[R][COLUMNS / 16] = {}, ds[R][COLUMNS / 16] = {};
            matmul_nt<D, PITCH>(s, X, U, ty, tx);
            matmul_nt<D, PITCH>(ds, Y, W, ty, tx);  // dP, for now
            UNROLL_FOR (int i = 0; i < R; i++)
                UNROLL_FOR (int j = 0; j < COLUMNS / 16; j++) {
                    const int c = c0 + tx + 16 * j, query = KEYS ? c : r0 + ty * R + i;
                    const bool use = seen(i, c);
                    const T score = capped(s[i][j] * scale, n), p = use ? exp(score - lse[query]) : T(0);
                    ds[i][j] = use ? p * (ds[i][j] - delta[query]) * slope_at(score, n) : T(0);
                    S[(ty * R + i) * S_PITCH + tx + 16 * j] = KEYS ? p : ds[i][j];
                }
            __syncwarp();
            const auto seen_here = [&](int i, int c) { return seen(i, c0 + c); };
            if (KEYS) {
                matmul_nn<COLUMNS, S_PITCH, PITCH>(dv, S, W, ty, tx, seen_here);
                __syncwarp();
                UNROLL_FOR (int i = 0; i < R; i++)
                    UNROLL_FOR (int j = 0; j < COLUMNS / 16; j++) S[(ty * R + i) * S_PITCH + tx + 16 * j] = ds[i][j];
                __syncwarp();
            }
            matmul_nn<COLUMNS, S_PITCH, PITCH>(g, S, U, ty, tx, seen_here);
        }
    }

    UNROLL_FOR (int i = 0; i < R; i++) {
        const int row = r0 + ty * R + i;
        if (row >= n.T) continue;
        UNROLL_FOR (int j = 0; j < D / 16; j++) {
            const int d = tx + 16 * j;
            if (d >= n.HS) continue;
            (KEYS ? shared_rows_of(a.dk, first, n) : rows_of(a.dq, first, n))[row][d] = g[i][j] * scale;
            if (KEYS) shared_rows_of(a.dv, first, n)[row][d] = dv[i][KEYS ? j : 0];
        }
    }
}
}  // namespace minillm::attention
