// Variant 4, wgmma: FlashAttention-3's forward (Shah et al. 2024, arXiv 2407.08608) on Hopper's tensor cores and TMA
// (hopper.h), for bfloat16 or float16 and head sizes up to 128; larger heads are variant 3's. So is the algorithm; new
// is who does what:
//
//   warpgroup 0, the producer:      one of its threads asks TMA for tile after tile of K and V, each into one of
//                                   STAGES places, as soon as that place is empty.
//   warpgroups 1 and 2, consumers:  64 query rows each. A matmul is begun and goes on while its warps do other things.
//
// Each place has two barriers. `full`: the producer expects so many bytes, TMA counts them. `empty`: all warps of
// the consumers have read it. The n-th use of a place waits for phase n of its barriers, 0, 1, 0, ... in turn.
//
// A tile of 128 x 128 keeps the tensor cores busy for 16 D cycles (2 matmuls of 128 * 128 * D, 2048 a cycle), and its
// exponentials take 1024 (16 a cycle): for D = 64 as long, for D = 128 half as long. So both must overlap, in two
// ways:
//
//   within a warpgroup:  S of tile j is begun before P V of tile j - 1, and the softmax of j runs beside that P V;
//   between the two:     while one begins matmuls, the other waits for its turn and takes exponentials; they swap.
//
//       tile      j:   S_j   P_(j-1) V    softmax(S_j)    out *= shrink    P_j = S_j as 16-bit numbers
//       tensor cores:  ===== =========================
//
// Blocks own ROWS rows that begin at a multiple of ROWS = COLUMNS. So only the last tile of a block has columns that
// not all rows see, and masks and the quarantine of variant 3 stand there only.
#pragma once

#include "cuda/attention/3_mma.cuh"
#include "cuda/gpu/hopper.h"

namespace minillm::attention {
// Of a block: threads that consume, threads, rows that it owns. Of a tile: it lies panel after panel, and a row of a
// panel has so many numbers, 128 bytes.
constexpr int CONSUMERS = 256, WGMMA_THREADS = 128 + CONSUMERS, OWNED = 128, PANEL = 64;

template <class E, int D>
struct WgmmaTile {
    static constexpr int ROWS = OWNED, COLUMNS = 128, STAGES = 2, THREADS = WGMMA_THREADS;
    static constexpr int TILE = COLUMNS * D;  // also of Q

    E q[TILE], k[STAGES][TILE], v[STAGES][TILE];  // first, since they begin at multiples of 1024
    uint64_t q_full, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    int edge[D];  // room for the quarantine
};

// Where number d of row r lies in a tile of so many rows.
template <int ROWS>
DEVICE int in_panels(int r, int d) {
    return d / PANEL * PANEL * ROWS + r * PANEL + (d % PANEL ^ r % 8 * 8);
}

struct TensorMaps { TensorMap q, k, v; };

// A tile: rows from `row` on of head h of sequence b.
template <int ROWS, int D, class E>
DEVICE void load_panels(E* tile, const TensorMap& map, uint64_t* full, int row, int h, int b) {
    barrier_expect(full, ROWS * D * sizeof(E));
    UNROLL_FOR (int d = 0; d < D; d += PANEL) tma_load(tile + d * ROWS, map, full, d, row, h, b);
}

// One thread fills the places; the first time around they are empty, and `wait` for phase 1 knows that.
template <class E, int D>
DEVICE void wgmma_produce(WgmmaTile<E, D>& s, const TensorMaps& maps, int r0, int tiles, int h, int b) {
    using Tile = WgmmaTile<E, D>;
    load_panels<Tile::ROWS, D>(s.q, maps.q, &s.q_full, r0, h, b);
    for (int j = 0; j < tiles; j++) {
        const int place = j % Tile::STAGES, phase = j / Tile::STAGES % 2;
        barrier_wait(&s.k_empty[place], 1 - phase);
        load_panels<Tile::COLUMNS, D>(s.k[place], maps.k, &s.k_full[place], j * Tile::COLUMNS, h, b);
        barrier_wait(&s.v_empty[place], 1 - phase);
        load_panels<Tile::COLUMNS, D>(s.v[place], maps.v, &s.v_full[place], j * Tile::COLUMNS, h, b);
    }
}

// Begin S = Q K^T: 64 of the OWNED rows, from q on, and a tile of 8 N8 keys. One instruction takes 16 numbers of D, of
// which a panel has four.
template <int D, class E, int N8>
DEVICE void begin_scores(float (&s)[N8][4], const E* q, const E* k) {
    UNROLL_FOR (int d = 0; d < D; d += 16) {
        const int panel = d / PANEL * PANEL, at = d % PANEL;
        wgmma_ss<E>(s, descriptor(q + panel * OWNED + at, 0), descriptor(k + panel * 8 * N8 + at, 0), d > 0);
    }
    wgmma_commit();
}

// Begin out += P V, 16 of the keys an instruction.
template <class E, int N8, int STEPS>
DEVICE void begin_out(float (&out)[N8][4], const uint32_t (&p)[STEPS][4], const E* v) {
    UNROLL_FOR (int i = 0; i < STEPS; i++)
        wgmma_rs<E>(out, p[i], descriptor(v + 16 * i * PANEL, 16 * STEPS * PANEL * sizeof(E)), true);
    wgmma_commit();
}

// This warp has read a place for the last time.
DEVICE void release_place(uint64_t* empty) {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty);
}

// `value` where a row does not see the column, or (KEYS: rows are keys) the column does not see the row. Each row has a
// range of columns, so that a number costs one comparison, or two.
template <bool KEYS, int N8>
DEVICE void mask_unseen(float (&s)[N8][4], float value, int first_row, int c0, const Sizes& n) {
    UNROLL_FOR (int h = 0; h < 2; h++) {
        const int row = first_row + lane_row(2 * h), first = c0 + lane_column(0);
        const int from = (n.causal ? row : 0) - first, end = (!KEYS && n.causal ? min(row + 1, n.T) : n.T) - first;
        UNROLL_FOR (int c = 0; c < N8; c++)
            UNROLL_FOR (int i = 0; i < 2; i++)
                if (8 * c + i >= end || (KEYS && 8 * c + i < from)) s[c][2 * h + i] = value;
    }
}

// S -> exp(S - top), of the two rows of this lane; top and total go on, and `shrink` is what their past must shrink
// by.
DEVICE void online_softmax(float (&s)[16][4], float (&top)[2], float (&total)[2], float (&shrink)[2], float scale2) {
    UNROLL_FOR (int h = 0; h < 2; h++) {
        float new_top = top[h], sum = 0;
        UNROLL_FOR (int c = 0; c < 16; c++) new_top = max(new_top, max(s[c][2 * h], s[c][2 * h + 1]));
        new_top = lanes_max<4>(new_top);
        const float base = new_top == -INFINITY ? 0.0f : new_top * scale2;
        shrink[h] = shrink_of(top[h], new_top, scale2);
        UNROLL_FOR (int c = 0; c < 16; c++)
            UNROLL_FOR (int e = 2 * h; e < 2 * h + 2; e++) sum += s[c][e] = exp2_fast(s[c][e] * scale2 - base);
        total[h] = total[h] * shrink[h] + sum;  // this lane's share; added up at the end
        top[h] = new_top;
    }
}

template <class E, int STEPS>
DEVICE void pack_scores(uint32_t (&p)[STEPS][4], const float (&s)[2 * STEPS][4]) {
    UNROLL_FOR (int c = 0; c < STEPS; c++)
        UNROLL_FOR (int r = 0; r < 4; r++)
            p[c][r] = pack<E>(s[2 * c + r / 2][r % 2 * 2], s[2 * c + r / 2][r % 2 * 2 + 1]);
}

// The exponent's bits of two 16-bit numbers, and the lowest of them. In an infinity or NaN they are all ones, so that
// adding the lowest carries into the place of the sign.
template <class E>
struct Exponent {
    static constexpr bool EIGHT_BITS = std::is_same<E, bf16>::value;
    static constexpr uint32_t BITS = EIGHT_BITS ? 0x7f807f80 : 0x7c007c00;
    static constexpr uint32_t LOWEST = EIGHT_BITS ? 0x00800080 : 0x04000400;
};
template <class E>
DEVICE bool any_broken(const E* eight) {
    const Vec4<uint32_t> x = load4(reinterpret_cast<const uint32_t*>(eight));
    uint32_t carries = 0;
    for (uint32_t pair : {x.x, x.y, x.z, x.w}) carries |= (pair & Exponent<E>::BITS) + Exponent<E>::LOWEST;
    return carries & 0x80008000;
}

// Variant 3's quarantine, of a tile that only some rows see whole: NaN into the sums that see a broken number of V,
// and 0 in its place. The zeros are stored by threads and read by the tensor cores: hence the fence. LATER: tile row c
// is seen by the owned rows from c on; or (false) by those up to c.
template <int COLUMNS, bool LATER, class E, int N8>
DEVICE void quarantine_values(float (&out)[N8][4], E* v, int* edge, int c0, int first_row) {
    constexpr int BARRIER = 3, D = 8 * N8;
    const int thread = threadIdx.x - 128;
    bool any = false;
    for (int i = thread * 8; i < COLUMNS * D; i += CONSUMERS * 8) any |= any_broken(v + i);
    if (!named_barrier_or(BARRIER, CONSUMERS, any)) return;
    for (int d = thread; d < D; d += CONSUMERS) {
        edge[d] = LATER ? 0x7fffffff : -1;
        for (int c = 0; c < COLUMNS; c++) {
            E& x = v[in_panels<COLUMNS>(c, d)];
            if (isfinite(float(x))) continue;
            edge[d] = LATER ? min(edge[d], c0 + c) : c0 + c;
            x = E(0.0f);
        }
    }
    fence_for_async();
    named_barrier(BARRIER, CONSUMERS);
    UNROLL_FOR (int c = 0; c < N8; c++)
        UNROLL_FOR (int e = 0; e < 4; e++) {
            const int row = first_row + lane_row(e), at = edge[8 * c + lane_column(e)];
            if (LATER ? row >= at : row <= at) out[c][e] = NAN;
        }
}

// Without this the compiler moves the softmax, which does not need the matmul under way, behind the wait for that
// matmul. What this store depends on it must have by now; x is not negative, so nothing is stored.
DEVICE void settle(float x, int* place) {
    if (x < 0) *place = 0;
}

// The two consumers begin their matmuls in turns: named barriers 1 and 2 are their turns.
DEVICE void take_turn(int consumer) { named_barrier(1 + consumer, CONSUMERS); }
DEVICE void give_turn(int consumer) { named_barrier_pass(2 - consumer, CONSUMERS); }

template <class E, int D>
DEVICE void wgmma_consume(WgmmaTile<E, D>& shared, const Forward<E>& a, const Sizes& n, int64_t bh, int r0, int tiles) {
    using Tile = WgmmaTile<E, D>;
    constexpr int STAGES = Tile::STAGES, COLUMNS = Tile::COLUMNS;
    const int consumer = threadIdx.x / 128 - 1;
    const int first_row = r0 + 64 * consumer + threadIdx.x % 128 / 32 * 16;  // of this warp
    const E* q = shared.q + 64 * consumer * PANEL;
    const float scale2 = float(n.scale) * LOG2E;
    const int last = tiles - 1, c_last = last * COLUMNS;
    const bool some_unseen = n.causal || c_last + COLUMNS > n.T;  // in the last tile

    float s[16][4], out[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {}, shrink[2];
    uint32_t p[8][4];
    barrier_wait(&shared.q_full, 0);
    barrier_wait(&shared.k_full[0], 0);
    wgmma_fence(s);
    begin_scores<D>(s, q, shared.k[0]);
    wgmma_wait<0>(s);
    release_place(&shared.k_empty[0]);
    if (last == 0 && some_unseen) mask_unseen<false>(s, -INFINITY, first_row, 0, n);
    online_softmax(s, top, total, shrink, scale2);
    pack_scores<E>(p, s);

    if (consumer == 1) give_turn(consumer);  // consumer 0 is the first
    for (int j = 1; j <= last; j++) {
        const int k_place = j % STAGES, v_place = (j - 1) % STAGES;
        barrier_wait(&shared.k_full[k_place], j / STAGES % 2);
        barrier_wait(&shared.v_full[v_place], (j - 1) / STAGES % 2);
        take_turn(consumer);
        wgmma_fence(s, out, p);
        begin_scores<D>(s, q, shared.k[k_place]);
        begin_out(out, p, shared.v[v_place]);
        give_turn(consumer);
        wgmma_wait<1>(s);
        release_place(&shared.k_empty[k_place]);
        if (j == last && some_unseen) mask_unseen<false>(s, -INFINITY, first_row, c_last, n);
        online_softmax(s, top, total, shrink, scale2);
        settle(total[0] + total[1], shared.edge);
        wgmma_wait<0>(out, p);
        release_place(&shared.v_empty[v_place]);
        UNROLL_FOR (int c = 0; c < D / 8; c++)
            UNROLL_FOR (int e = 0; e < 4; e++) out[c][e] *= shrink[e / 2];
        pack_scores<E>(p, s);
    }

    E* v = shared.v[last % STAGES];
    barrier_wait(&shared.v_full[last % STAGES], last / STAGES % 2);
    if (n.causal) quarantine_values<COLUMNS, true>(out, v, shared.edge, c_last, first_row);
    wgmma_fence(out, p);
    begin_out(out, p, v);
    wgmma_wait<0>(out);

    UNROLL_FOR (int h = 0; h < 2; h++) {
        const float sum = lanes_sum<4>(total[h]);
        const int row = first_row + lane_row(2 * h);
        if (row >= n.T) continue;
        store_pairs<E, D>(rows_of(a.out, bh, n), row, out, h, 1 / sum, 0, n);
        if (threadIdx.x % 4 == 0) a.lse[bh * n.T + row] = top[h] * float(n.scale) + log(sum);
    }
}

// With 168 registers a thread at the start, the producer gives most of its own to the consumers.
template <class E, int D>
__global__ void __launch_bounds__((WgmmaTile<E, D>::THREADS), 1)
    wgmma_forward(const __grid_constant__ TensorMaps maps, Forward<E> a, Sizes n) {
    LAUNCH_BOUNDS((WgmmaTile<E, D>::THREADS), 1);
    using Tile = WgmmaTile<E, D>;
    SHARED(Tile, shared);
    const int64_t bh = head_of_block();
    if (bh >= n.B * n.NH) return;
    const int r0 = (gridDim.y - 1 - blockIdx.y) * Tile::ROWS;  // the last rows see most: they start first
    const int end = n.causal && r0 + Tile::ROWS < n.T ? r0 + Tile::ROWS : n.T;
    const int tiles = (end + Tile::COLUMNS - 1) / Tile::COLUMNS;
    if (threadIdx.x == 0) {
        barrier_init(&shared->q_full, 1);
        for (int i = 0; i < Tile::STAGES; i++) {
            barrier_init(&shared->k_full[i], 1);
            barrier_init(&shared->v_full[i], 1);
            barrier_init(&shared->k_empty[i], CONSUMERS / 32);
            barrier_init(&shared->v_empty[i], CONSUMERS / 32);
        }
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        keep_registers<24>();
        if (threadIdx.x == 0) wgmma_produce<E, D>(*shared, maps, r0, tiles, int(bh % n.NH), int(bh / n.NH));
    } else {
        take_registers<240>();
        wgmma_consume<E, D>(*shared, a, n, bh, r0, tiles);
    }
}
}  // namespace minillm::attention
