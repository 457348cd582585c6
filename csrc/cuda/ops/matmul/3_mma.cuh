// Step 3: the tensor cores of Ampere and later. Operands in bfloat16, sums in float.
//
// A block has a tile of SIDE x SIDE of C, a warp 64 x 32 of it: 4 x 4 results of `mma`, which multiplies 16 x 16 by 16
// x 8 numbers that the 32 lanes hold together (who holds what: cuda/attention/3_mma.cuh). Parts of A and B, DEPTH of k
// at a time, come by asynchronous copies (cp_async) into a ring of STAGES places: while one is multiplied, the next two
// are on their way. One barrier a part does both: after it, part t is there for all warps, and nobody still reads part
// t - 1, whose place the next copies fill.
//
// An operand lies in shared memory as in memory, along k or across, and `ldmatrix` transposes what lies across on its
// way to the registers. It reads 8 rows of 16 bytes at once, which must lie in different groups of banks: chunk c of
// row r is stored at place c ^ f(r). What does not fill 16 bytes, or does not begin at a multiple of them, is brought
// number by number.
//
// Each sum goes through k in order, 16 at a time.
#pragma once

#include "cuda/ops/matmul/drain.cuh"
#include "cuda/ops/matmul/slices.cuh"

namespace minillm::gemm {

struct MmaTile {
    static constexpr int SIDE = 128, DEPTH = 32, STAGES = 3, THREADS = 256;
    static constexpr int WARPS_ACROSS = 4, ROWS = 64, COLUMNS = 32;  // of a warp
    static constexpr int PART = SIDE * DEPTH;
    static constexpr size_t SHARED_BYTES = STAGES * 2 * PART * 2;
};

// Where chunk c (8 numbers) of row r lies in a part of rows of LINE numbers.
template <int LINE>
DEVICE int swizzled(int r, int c) {
    constexpr int CHUNKS = LINE / 8, ROWS_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1, MASK = (CHUNKS < 8 ? CHUNKS : 8) - 1;
    return r * LINE + (c ^ (r / ROWS_A_LINE & MASK)) * 8;
}

// An operand's part: SIDE rows of A (columns of B) from `first` on, DEPTH of k from k0 on; 0 where there are none.
// ALONG_K: neighbours in memory are neighbours in k.
template <bool ALONG_K>
struct Part {
    static constexpr int LINE = ALONG_K ? MmaTile::DEPTH : MmaTile::SIDE;

    static DEVICE void load(bf16* part, const bf16* data, int64_t stride, int64_t first, int64_t size, int64_t k0,
                            int64_t K) {
        const int64_t row0 = ALONG_K ? first : k0, column0 = ALONG_K ? k0 : first;
        const int64_t rows = ALONG_K ? size : K, columns = ALONG_K ? K : size;
        UNROLL_FOR (int i = threadIdx.x; i < MmaTile::PART / 8; i += MmaTile::THREADS) {
            const int r = i / (LINE / 8), c = i % (LINE / 8);
            const int64_t left = row0 + r < rows ? columns - (column0 + 8 * c) : 0;
            const bf16* from = data + (row0 + r) * stride + column0 + 8 * c;
            bf16* to = part + swizzled<LINE>(r, c);
            if (left >= 8 && reinterpret_cast<uintptr_t>(from) % 16 == 0) cp_async<16>(to, from, true);
            else
                for (int j = 0; j < 8; j++) to[j] = j < left ? from[j] : bf16(0.0f);
        }
    }

    // 16 x 16 numbers, those from row (of A) or column (of B) r and from k on, as an operand of mma; A's second and
    // third quarters are B's third and second.
    template <bool IS_A>
    static DEVICE void fragment(uint32_t (&f)[4], const bf16* part, int r, int k) {
        const int lane = threadIdx.x % 32, low = lane / 8 % 2, high = lane / 16;
        const int along_r = (IS_A ? low : high) * 8, along_k = IS_A ? high : low;
        if (ALONG_K) ldmatrix(f, part + swizzled<LINE>(r + along_r + lane % 8, k / 8 + along_k));
        else ldmatrix_t(f, part + swizzled<LINE>(k + 8 * along_k + lane % 8, (r + along_r) / 8));
    }
};

template <class A, class B, class C, class Epilogue>
__global__ void __launch_bounds__(MmaTile::THREADS, 2) mma_matmul(Sizes n, A a, B b, Output<C> out, Epilogue epilogue) {
    LAUNCH_BOUNDS(MmaTile::THREADS, 2);
    using PartA = Part<!A::transposed>;
    using PartB = Part<B::transposed>;
    constexpr int DEPTH = MmaTile::DEPTH, STAGES = MmaTile::STAGES, HIGH = MmaTile::ROWS / 16,
                  WIDE = MmaTile::COLUMNS / 16;
    SHARED(bf16, shared);
    const Place tile = place_of_tile(n, MmaTile::SIDE, MmaTile::SIDE, blockIdx.x);
    const int64_t row0 = tile.row * MmaTile::SIDE, column0 = tile.column * MmaTile::SIDE, begin = n.begin(tile.slice),
                  end = n.end(tile.slice), parts = (end - begin + DEPTH - 1) / DEPTH;
    const int warp = threadIdx.x / 32;
    const int warp_row = warp / MmaTile::WARPS_ACROSS * MmaTile::ROWS,
              warp_column = warp % MmaTile::WARPS_ACROSS * MmaTile::COLUMNS;

    const auto load = [&](int64_t t) {
        if (t < parts) {
            bf16* part = shared + t % STAGES * 2 * MmaTile::PART;
            PartA::load(part, a.data, a.stride, row0, n.M, begin + t * DEPTH, end);
            PartB::load(part + MmaTile::PART, b.data, b.stride, column0, n.N, begin + t * DEPTH, end);
        }
        cp_async_commit();
    };
    float sum[HIGH][2 * WIDE][4] = {};
    for (int t = 0; t < STAGES - 1; t++) load(t);
    for (int64_t t = 0; t < parts; t++) {
        cp_async_wait<STAGES - 2>();  // my copies of this part have landed,
        __syncthreads();  // everybody's have, and the part before is free
        load(t + STAGES - 1);
        const bf16 *part_a = shared + t % STAGES * 2 * MmaTile::PART, *part_b = part_a + MmaTile::PART;
        UNROLL_FOR (int k = 0; k < DEPTH; k += 16) {
            uint32_t fa[HIGH][4], fb[4];
            UNROLL_FOR (int i = 0; i < HIGH; i++) PartA::template fragment<true>(fa[i], part_a, warp_row + 16 * i, k);
            UNROLL_FOR (int j = 0; j < WIDE; j++) {
                PartB::template fragment<false>(fb, part_b, warp_column + 16 * j, k);
                UNROLL_FOR (int i = 0; i < HIGH; i++) {
                    mma<bf16>(sum[i][2 * j], fa[i], fb[0], fb[1]);
                    mma<bf16>(sum[i][2 * j + 1], fa[i], fb[2], fb[3]);
                }
            }
        }
    }
    __syncthreads();  // the ring is free
    out.data += tile.slice * n.M * out.stride;
    float* room = reinterpret_cast<float*>(shared) + warp * Drain<MmaTile::COLUMNS>::ROOM;
    UNROLL_FOR (int i = 0; i < HIGH; i++)
        drain<MmaTile::COLUMNS>(room, sum[i], out, n, epilogue, row0 + warp_row + 16 * i, column0 + warp_column);
}

struct Mma {
    template <class T>
    using Stored = bf16;  // what operands are rounded to

    template <class A, class B, class C, class Epilogue = Plain>
    static void matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue = {});
};

template <class A, class B, class C, class Epilogue>
void Mma::matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue) {
    if (n.M == 0 || n.N == 0) return;
    const int64_t tiles = tiles_of(n.M, MmaTile::SIDE) * tiles_of(n.N, MmaTile::SIDE);
    const Sizes cut = sliced<A, C, Epilogue>(n, tiles);
    const auto start = [&](auto to) {
        launch(mma_matmul<A, B, C, Epilogue>, grid_of(cut, MmaTile::SIDE, MmaTile::SIDE), MmaTile::THREADS,
               MmaTile::SHARED_BYTES, stream_t(stream), cut, a, b, to, epilogue);
    };
    if constexpr (std::is_same_v<C, float>) {
        if (cut.slice) return in_slices(cut, out, stream, start);
    }
    start(out);
}

}  // namespace minillm::gemm
