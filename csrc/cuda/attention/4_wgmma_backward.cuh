// Variant 4, wgmma: backward, on Hopper's tensor cores. The two kernels of variant 2 (see its table of X, Y, U, W);
// who does what is as in variant 4's forward. No atomics, so equal bits in every run.
//
// A consumer owns 64 rows of X and Y, which stay in shared memory, and takes tile after tile of U and W:
//
//   S = X U^T,  dP = Y W^T          P = exp(S - lse)  while dP is under way, then dS = P (dP - delta)
//   dV += P^T dout,  dK += dS^T Q   (or dQ += dS K): the tile's numbers from registers, U and W from shared memory
//
// and begins the sums of tile j - 1, then S and dP of tile j, in one turn: then the tensor cores have work while the
// other consumer takes exponentials.
//
// Registers decide how large a tile may be. A thread has 240: D sums (dQ alone: D / 2), COLUMNS / 2 of S and as many of
// dP, and as many again of 16-bit numbers (half for dQ), which ptxas does not let lie where dP has been. So for keys a
// tile has 64 columns: with 128 it would be 64 + 3 * 64 at D = 64.
#pragma once

#include "cuda/attention/4_wgmma.cuh"

namespace minillm::attention {
template <class E, int D, bool KEYS>
struct WgmmaBackwardTile {
    static constexpr int COLUMNS = KEYS ? 64 : 128;  // rows of a streamed tile
    static constexpr int STAGES = KEYS || D == 64 ? 3 : 2;  // more do not fit

    E x[OWNED * D], y[OWNED * D], u[STAGES][COLUMNS * D], w[STAGES][COLUMNS * D];
    float lse[STAGES][COLUMNS], delta[STAGES][COLUMNS];  // of the tile's queries; lse in base 2
    uint64_t owned_full, full[STAGES], empty[STAGES];
    int edge[D];  // room for the quarantine
};

struct BackwardMaps { TensorMap x, y, u, w; };

// Which tiles a block takes: `tiles` of them from row `begin` on.
struct Walk { int r0, begin, tiles; };

// The producer is one warp: its first lane asks for the tiles; if they are queries, all bring their two numbers each.
template <class E, int D, bool KEYS>
DEVICE void produce_backward(WgmmaBackwardTile<E, D, KEYS>& s, const BackwardMaps& maps, const Backward<E>& a,
                             const Sizes& n, int64_t bh, const Walk& walk) {
    using Tile = WgmmaBackwardTile<E, D, KEYS>;
    const int lane = threadIdx.x, h = int(bh % n.NH), b = int(bh / n.NH);
    if (lane == 0) {
        load_panels<OWNED, D>(s.x, maps.x, &s.owned_full, walk.r0, h, b);
        load_panels<OWNED, D>(s.y, maps.y, &s.owned_full, walk.r0, h, b);
    }
    for (int j = 0; j < walk.tiles; j++) {
        const int place = j % Tile::STAGES, phase = j / Tile::STAGES % 2, c0 = walk.begin + j * Tile::COLUMNS;
        barrier_wait(&s.empty[place], 1 - phase);
        if (lane == 0) {
            load_panels<Tile::COLUMNS, D>(s.u[place], maps.u, &s.full[place], c0, h, b);
            load_panels<Tile::COLUMNS, D>(s.w[place], maps.w, &s.full[place], c0, h, b);
        }
        if constexpr (KEYS) {
            for (int c = lane; c < Tile::COLUMNS; c += 32) {  // past the end 0, which nobody uses
                const bool inside = c0 + c < n.T;
                s.lse[place][c] = inside ? a.lse[bh * n.T + c0 + c] * LOG2E : 0;
                s.delta[place][c] = inside ? a.delta[bh * n.T + c0 + c] : 0;
            }
            barrier_arrive(&s.full[place]);
        }
    }
}

// The number that a lane's element e needs of its query, which is its column (KEYS) or its row.
template <bool KEYS>
DEVICE float of_query(const Vec2<float>& columns, const float (&rows)[2], int e) {
    return KEYS ? (e % 2 ? columns.y : columns.x) : rows[e / 2];
}
template <bool KEYS>
DEVICE Vec2<float> of_columns(const float* tile, int c) {
    if constexpr (KEYS) return load2(tile + 8 * c + lane_column(0));
    return {0, 0};
}

// S -> P = exp(S - lse)
template <bool KEYS, int N8>
DEVICE void take_exponentials(float (&s)[N8][4], const float* tile, const float (&rows)[2], float scale2) {
    UNROLL_FOR (int c = 0; c < N8; c++) {
        const Vec2<float> columns = of_columns<KEYS>(tile, c);
        UNROLL_FOR (int e = 0; e < 4; e++) s[c][e] = exp2_fast(s[c][e] * scale2 - of_query<KEYS>(columns, rows, e));
    }
}
// dP -> dS = P (dP - delta)
template <bool KEYS, int N8>
DEVICE void take_slopes(float (&ds)[N8][4], const float (&p)[N8][4], const float* tile, const float (&rows)[2]) {
    UNROLL_FOR (int c = 0; c < N8; c++) {
        const Vec2<float> columns = of_columns<KEYS>(tile, c);
        UNROLL_FOR (int e = 0; e < 4; e++) ds[c][e] = p[c][e] * (ds[c][e] - of_query<KEYS>(columns, rows, e));
    }
}

// What a thread of a consumer holds; and of a tile S, later P, and dP, later dS.
template <int D, int COLUMNS, bool KEYS>
struct BackwardRegisters {
    int first_row;  // of this warp
    float lse[2], delta[2];  // of rows g and g + 8, if those are queries
    uint32_t p16[COLUMNS / 16][4], ds16[COLUMNS / 16][4];
    float g[D / 8][4], dv[KEYS ? D / 8 : 1][4];  // dK or dQ; dV
};
template <int COLUMNS>
struct Scores {
    float s[COLUMNS / 8][4], ds[COLUMNS / 8][4];
};

// From S and dP under way to P and dS as 16-bit numbers, of tile j.
template <class E, int D, bool KEYS, int COLUMNS>
DEVICE void finish_tile(BackwardRegisters<D, COLUMNS, KEYS>& r, Scores<COLUMNS>& now,
                        WgmmaBackwardTile<E, D, KEYS>& shared, const Sizes& n, const Walk& walk, int j) {
    constexpr int STAGES = WgmmaBackwardTile<E, D, KEYS>::STAGES;
    const int place = j % STAGES, c0 = walk.begin + j * COLUMNS, first = r.first_row;
    const bool all_seen = c0 + COLUMNS <= n.T && (!n.causal || (KEYS ? c0 >= first + 15 : c0 + COLUMNS <= first + 1));
    wgmma_wait<1>(now.s);
    take_exponentials<KEYS>(now.s, shared.lse[place], r.lse, float(n.scale) * LOG2E);
    if (!all_seen) mask_unseen<KEYS>(now.s, 0, first, c0, n);
    wgmma_wait<0>(now.ds);
    take_slopes<KEYS>(now.ds, now.s, shared.delta[place], r.delta);
    if (!all_seen) mask_unseen<KEYS>(now.ds, 0, first, c0, n);  // 0 (dP - delta) may be NaN
    if (n.causal && (KEYS ? c0 < walk.r0 + OWNED - 1 : c0 + COLUMNS > walk.r0 + 1)) {
        if constexpr (KEYS) quarantine_values<COLUMNS, false>(r.dv, shared.w[place], shared.edge, c0, first);
        quarantine_values<COLUMNS, !KEYS>(r.g, shared.u[place], shared.edge, c0, first);
    }
    if constexpr (KEYS) pack_scores<E>(r.p16, now.s);
    pack_scores<E>(r.ds16, now.ds);
}

// dV += P^T dout and dK += dS^T Q, or dQ += dS K, later; u and w are the tile that p16 and ds16 are of.
template <bool KEYS, class E, class Registers>
DEVICE void begin_sums(Registers& r, const E* u, const E* w) {
    if constexpr (KEYS) {
        wgmma_fence(r.dv, r.p16);
        begin_out(r.dv, r.p16, w);
    }
    wgmma_fence(r.g, r.ds16);
    begin_out(r.g, r.ds16, u);
}
template <int LATER, bool KEYS, class Registers>
DEVICE void wait_for_sums(Registers& r) {
    if constexpr (KEYS) wgmma_wait<LATER>(r.g, r.ds16, r.dv, r.p16);
    else wgmma_wait<LATER>(r.g, r.ds16);
}

template <class E, int D, bool KEYS>
DEVICE void consume_backward(WgmmaBackwardTile<E, D, KEYS>& shared, const Backward<E>& a, const Sizes& n, int64_t bh,
                             const Walk& walk) {
    using Tile = WgmmaBackwardTile<E, D, KEYS>;
    constexpr int STAGES = Tile::STAGES, COLUMNS = Tile::COLUMNS;
    const int consumer = threadIdx.x / 128 - 1;
    const E *x = shared.x + 64 * consumer * PANEL, *y = shared.y + 64 * consumer * PANEL;
    BackwardRegisters<D, COLUMNS, KEYS> r = {walk.r0 + 64 * consumer + int(threadIdx.x) % 128 / 32 * 16};
    for (int i = 0; i < 2 && !KEYS; i++) {
        const int row = r.first_row + lane_row(2 * i);
        if (row >= n.T) continue;
        r.lse[i] = a.lse[bh * n.T + row] * LOG2E;
        r.delta[i] = a.delta[bh * n.T + row];
    }

    barrier_wait(&shared.owned_full, 0);
    barrier_wait(&shared.full[0], 0);
    Scores<COLUMNS> first;
    wgmma_fence(first.s, first.ds);
    begin_scores<D>(first.s, x, shared.u[0]);
    begin_scores<D>(first.ds, y, shared.w[0]);
    finish_tile(r, first, shared, n, walk, 0);
    if (consumer == 1) give_turn(consumer);  // consumer 0 is the first
    for (int j = 1; j < walk.tiles; j++) {
        const int place = j % STAGES, last_place = (j - 1) % STAGES;
        Scores<COLUMNS> now;  // a fresh one: the last is not kept in registers
        barrier_wait(&shared.full[place], j / STAGES % 2);
        take_turn(consumer);
        begin_sums<KEYS>(r, shared.u[last_place], shared.w[last_place]);
        wgmma_fence(now.s);
        begin_scores<D>(now.s, x, shared.u[place]);
        wait_for_sums<1, KEYS>(r);
        release_place(&shared.empty[last_place]);
        wgmma_fence(now.ds);
        begin_scores<D>(now.ds, y, shared.w[place]);
        give_turn(consumer);
        finish_tile(r, now, shared, n, walk, j);
    }
    const int place = (walk.tiles - 1) % STAGES;
    begin_sums<KEYS>(r, shared.u[place], shared.w[place]);
    wait_for_sums<0, KEYS>(r);

    UNROLL_FOR (int i = 0; i < 2; i++) {
        const int row = r.first_row + lane_row(2 * i);
        if (row >= n.T) continue;
        store_pairs<E, D>(rows_of(KEYS ? a.dk : a.dq, bh, n), row, r.g, i, float(n.scale), 0, n);
        if constexpr (KEYS) store_pairs<E, D>(rows_of(a.dv, bh, n), row, r.dv, i, 1.0f, 0, n);
    }
}

template <class E, int D, bool KEYS>
__global__ void __launch_bounds__(WGMMA_THREADS, 1)
    wgmma_backward(const __grid_constant__ BackwardMaps maps, Backward<E> a, Sizes n) {
    LAUNCH_BOUNDS(WGMMA_THREADS, 1);
    using Tile = WgmmaBackwardTile<E, D, KEYS>;
    SHARED(Tile, shared);
    const int64_t bh = head_of_block();
    if (bh >= n.B * n.NH) return;
    const int r0 = (KEYS ? blockIdx.y : gridDim.y - 1 - blockIdx.y) * OWNED;  // those that see or are seen most first
    const int begin = KEYS && n.causal ? r0 : 0, end = !KEYS && n.causal && r0 + OWNED < n.T ? r0 + OWNED : n.T;
    const Walk walk = {r0, begin, (end - begin + Tile::COLUMNS - 1) / Tile::COLUMNS};
    if (threadIdx.x == 0) {
        barrier_init(&shared->owned_full, 2);
        for (int i = 0; i < Tile::STAGES; i++) {
            barrier_init(&shared->full[i], KEYS ? 2 + 32 : 2);
            barrier_init(&shared->empty[i], CONSUMERS / 32);
        }
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        keep_registers<24>();
        if (threadIdx.x < 32) produce_backward(*shared, maps, a, n, bh, walk);
    } else {
        take_registers<240>();
        consume_backward(*shared, a, n, bh, walk);
    }
}
}  // namespace minillm::attention
