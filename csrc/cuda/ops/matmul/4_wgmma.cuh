// Step 4: Hopper's tensor cores and TMA (cuda/gpu/hopper.h). Operands in bfloat16, sums in float.
//
//   warpgroup 0, the producer:      one of its threads asks TMA for part after part of A and B, each into one of STAGES
//                                   places, as soon as that place is empty.
//   warpgroups 1 and 2, consumers:  128 x 128 numbers of the block's tile each. One matmul reads both operands straight
//                                   from shared memory, and goes on while the next is begun.
//
// A tile of 256 x 128 asks for 384 numbers a column of A, where two of step 3 ask for 512: L2 would be too slow for
// those. A block takes tile after tile (a grid of as many blocks as the GPU has multiprocessors), and the producer runs
// ahead: the parts of the next tile arrive while consumers write this one.
//
// Each place has two barriers. `full`: the producer expects so many bytes, TMA counts them. `empty`: all warps of the
// consumers have read it. The n-th use of a place waits for phase n of its barriers, 0, 1, 0, ... in turn.
//
// An operand lies in shared memory as in memory, in panels of 64 numbers (128 bytes) a row: of one that is along k,
// rows are those of the tile, and DEPTH is a panel; else rows are DEPTH of k, and a tile is several panels. Zeros lie
// outside.
#pragma once

#include "cuda/gpu/hopper.h"
#include "cuda/ops/matmul/drain.cuh"

namespace minillm::gemm {

struct alignas(1024) WgmmaTile {
    static constexpr int ROWS = 256, COLUMNS = 128, DEPTH = 64, STAGES = 3, CONSUMERS = 256, THREADS = 128 + CONSUMERS;
    static constexpr int PANEL = 64 * DEPTH;  // numbers of 64 rows (or columns) of an operand
    static constexpr int HIGH = 2;  // times 64 rows of a consumer

    bf16 a[STAGES][ROWS * DEPTH], b[STAGES][COLUMNS * DEPTH];
    float drains[CONSUMERS / 32][Drain<COLUMNS>::ROOM];  // of each warp
    uint64_t full[STAGES], empty[STAGES];
};

struct TensorMaps { TensorMap a, b; };

// Of all slices.
DEVICE int64_t tiles_of(const Sizes& n) {
    const int64_t down = (n.M + WgmmaTile::ROWS - 1) / WgmmaTile::ROWS,
                  slices = n.slice ? (n.K + n.slice - 1) / n.slice : 1;
    return down * ((n.N + WgmmaTile::COLUMNS - 1) / WgmmaTile::COLUMNS) * slices;
}

// SIDE rows of A (columns of B) from `first` on, DEPTH of k from k0 on.
template <bool ALONG_K, int SIDE>
DEVICE void load_panels(bf16* to, const TensorMap& map, uint64_t* full, int first, int k0) {
    if constexpr (ALONG_K) tma_load(to, map, full, k0, first, 0, 0);
    else
        UNROLL_FOR (int i = 0; i < SIDE / 64; i++)
            tma_load(to + i * WgmmaTile::PANEL, map, full, first + 64 * i, k0, 0, 0);
}

// One thread fills the places; the first time around they are empty, and `wait` for phase 1 knows that.
template <bool A_ALONG_K, bool B_ALONG_K>
DEVICE void produce(WgmmaTile& s, const TensorMaps& maps, const Sizes& n) {
    int64_t part = 0;
    for (int64_t id = blockIdx.x; id < tiles_of(n); id += gridDim.x) {
        const Place tile = place_of_tile(n, WgmmaTile::ROWS, WgmmaTile::COLUMNS, id);
        const int64_t end = n.end(tile.slice);
        for (int64_t k0 = n.begin(tile.slice); k0 < end; k0 += WgmmaTile::DEPTH, part++) {
            const int place = part % WgmmaTile::STAGES, phase = part / WgmmaTile::STAGES % 2;
            barrier_wait(&s.empty[place], 1 - phase);
            barrier_expect(&s.full[place], sizeof s.a[0] + sizeof s.b[0]);
            load_panels<A_ALONG_K, WgmmaTile::ROWS>(s.a[place], maps.a, &s.full[place], int(tile.row * WgmmaTile::ROWS),
                                                    int(k0));
            load_panels<B_ALONG_K, WgmmaTile::COLUMNS>(s.b[place], maps.b, &s.full[place],
                                                       int(tile.column * WgmmaTile::COLUMNS), int(k0));
        }
    }
}

// Begin sum += A B of one part: 16 of k an instruction, which go on along a row (32 bytes), or to the 16th row from
// there.
template <bool A_ALONG_K, bool B_ALONG_K>
DEVICE void begin_part(float (&sum)[WgmmaTile::HIGH][16][4], const bf16* a, const bf16* b) {
    wgmma_fence(sum[0], sum[1]);
    UNROLL_FOR (int k = 0; k < WgmmaTile::DEPTH; k += 16) {
        const int leading = WgmmaTile::PANEL * 2;
        const uint64_t db = B_ALONG_K ? descriptor(b + k, 0) : descriptor(b + k * 64, leading);
        UNROLL_FOR (int i = 0; i < WgmmaTile::HIGH; i++) {
            const bf16* rows = a + i * WgmmaTile::PANEL;
            const uint64_t da = A_ALONG_K ? descriptor(rows + k, 0) : descriptor(rows + k * 64, leading);
            wgmma_ss<bf16, !A_ALONG_K, !B_ALONG_K>(sum[i], da, db, true);
        }
    }
    wgmma_commit();
}

template <bool A_ALONG_K, bool B_ALONG_K, class C, class Epilogue>
DEVICE void consume(WgmmaTile& s, const Sizes& n, const Output<C>& out, const Epilogue& epilogue) {
    const int consumer = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int rows0 = consumer * WgmmaTile::HIGH;  // times 64
    const auto release = [&](int64_t part) {
        if (lane == 0) barrier_arrive(&s.empty[part % WgmmaTile::STAGES]);
    };
    int64_t part = 0;
    for (int64_t id = blockIdx.x; id < tiles_of(n); id += gridDim.x) {
        const Place tile = place_of_tile(n, WgmmaTile::ROWS, WgmmaTile::COLUMNS, id);
        const int64_t begin = n.begin(tile.slice), end = n.end(tile.slice);
        float sum[WgmmaTile::HIGH][16][4] = {};
        for (int64_t k0 = begin; k0 < end; k0 += WgmmaTile::DEPTH, part++) {
            const int place = part % WgmmaTile::STAGES;
            barrier_wait(&s.full[place], part / WgmmaTile::STAGES % 2);
            begin_part<A_ALONG_K, B_ALONG_K>(sum, s.a[place] + rows0 * WgmmaTile::PANEL, s.b[place]);
            wgmma_wait<1>();  // the part before has been read
            if (k0 > begin) release(part - 1);
        }
        wgmma_wait<0>(sum[0], sum[1]);
        release(part - 1);
        const Output<C> to = {out.data + tile.slice * n.M * out.stride, out.stride, out.add};
        const int64_t row0 = tile.row * WgmmaTile::ROWS + 64 * rows0 + 16 * warp;
        UNROLL_FOR (int i = 0; i < WgmmaTile::HIGH; i++)
            drain<WgmmaTile::COLUMNS>(s.drains[4 * consumer + warp], sum[i], to, n, epilogue, row0 + 64 * i,
                                      tile.column * WgmmaTile::COLUMNS);
    }
}

// With 168 registers a thread at the start, the producer gives most of its own to the consumers.
template <bool A_ALONG_K, bool B_ALONG_K, class C, class Epilogue>
__global__ void __launch_bounds__(WgmmaTile::THREADS, 1)
    wgmma_matmul(const __grid_constant__ TensorMaps maps, Sizes n, Output<C> out, Epilogue epilogue) {
    LAUNCH_BOUNDS(WgmmaTile::THREADS, 1);
    SHARED(WgmmaTile, shared);
    if (threadIdx.x == 0) {
        for (int i = 0; i < WgmmaTile::STAGES; i++) {
            barrier_init(&shared->full[i], 1);
            barrier_init(&shared->empty[i], WgmmaTile::CONSUMERS / 32);
        }
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        keep_registers<24>();
        if (threadIdx.x == 0) produce<A_ALONG_K, B_ALONG_K>(*shared, maps, n);
    } else {
        take_registers<240>();
        consume<A_ALONG_K, B_ALONG_K>(*shared, n, out, epilogue);
    }
}

// What TMA must know of an operand of so many rows and columns, as memory has them: axes 2 and 3 have one place.
template <bool ALONG_K>
TensorMap map_of(const bf16* data, int64_t stride, int64_t rows, int64_t K, int side) {
    const uint64_t down = ALONG_K ? rows : K, across = ALONG_K ? K : rows;
    return tensor_map(data, {across, down, 1, 1}, {uint64_t(stride) * 2, 16, 16},
                      {64, uint32_t(ALONG_K ? side : WgmmaTile::DEPTH), 1, 1});
}

template <bool TA, bool TB, class C, class Epilogue>
void launch_wgmma(const Sizes& n, Matrix<bf16, TA> a, Matrix<bf16, TB> b, Output<C> out, gpu::Stream stream,
                  Epilogue epilogue) {
    const TensorMaps maps = {map_of<!TA>(a.data, a.stride, n.M, n.K, WgmmaTile::ROWS),
                             map_of<TB>(b.data, b.stride, n.N, n.K, WgmmaTile::COLUMNS)};
    const unsigned tiles = grid_of(n, WgmmaTile::ROWS, WgmmaTile::COLUMNS).x, most = unsigned(gpu::multiprocessors());
    launch(wgmma_matmul<!TA, TB, C, Epilogue>, dim3(tiles < most ? tiles : most), WgmmaTile::THREADS, sizeof(WgmmaTile),
           stream_t(stream), maps, n, out, epilogue);
}

}  // namespace minillm::gemm
