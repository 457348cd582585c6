// Step 2: a block has a square tile of C, and brings the parts of A and B that it needs to shared memory, DEPTH columns
// of A and rows of B at a time: each number from memory is used SIDE times. A thread has EACH x EACH sums in registers,
// and so
// 2 * EACH numbers from shared memory serve EACH^2 multiplications.
//
//   - Both parts lie in shared memory with the numbers of one k side by side, four of which are one load of 16 bytes.
//     Lanes (8 across, 4 down) read 8 and 4 such fours, each from banks of its own.
//   - An operand whose neighbours in memory are neighbours in k is transposed on its way: four numbers of four rows of
//     the tile. Rows of LINE = SIDE + 4 numbers let 32 lanes do that without a bank conflict.
//   - While a part is multiplied, the next is on its way to registers, and then to the other of two buffers: one
//     barrier
//     a part. What lies outside of A and B is 0 there.
//
// Each sum goes through k in order, as step 1's, so that their bits are the same, whatever the tile and the batch.
#pragma once

#include "cuda/ops/matmul/common.cuh"

namespace minillm::gemm {

template <int SIDE_, int EACH_>
struct Tile {
    static constexpr int SIDE = SIDE_, EACH = EACH_, ACROSS = SIDE / EACH, THREADS = ACROSS * ACROSS;
    static constexpr int DEPTH = 4 * THREADS / SIDE;  // a thread brings four numbers of each operand
    static constexpr int LINE = SIDE + 4, PART = DEPTH * LINE, GAP = 4 * ACROSS;
};
using Large = Tile<128, 8>;
using Small = Tile<32, 4>;
constexpr int64_t LARGE_FROM = 66;  // tiles: with fewer, more than half of an H100's 132 SMs would have none

// Four numbers of an operand that has SIDE rows (of A; columns of B) from `first` on: from memory, then to shared
// memory. ALONG_K: neighbours in memory are neighbours in k.
template <class Tile, class T, bool ALONG_K>
struct Four {
    T v[4];
    static DEVICE int row() { return ALONG_K ? threadIdx.x / (Tile::DEPTH / 4) : threadIdx.x % (Tile::SIDE / 4) * 4; }
    static DEVICE int k() { return ALONG_K ? threadIdx.x % (Tile::DEPTH / 4) * 4 : threadIdx.x / (Tile::SIDE / 4); }

    DEVICE void load(const T* data, int64_t stride, int64_t first, int64_t rows, int64_t k0, int64_t K) {
        const int64_t r = first + row(), c = k0 + k();
        if (ALONG_K) load_numbers(v, data + r * stride + c, r < rows ? K - c : 0);
        else load_numbers(v, data + c * stride + r, c < K ? rows - r : 0);
    }
    DEVICE void put(T* part) const {
        if (ALONG_K) {
            UNROLL_FOR (int i = 0; i < 4; i++) part[(k() + i) * Tile::LINE + row()] = v[i];
        } else store4(part + k() * Tile::LINE + row(), Vec4<T>{v[0], v[1], v[2], v[3]});
    }
};

// This thread's EACH numbers of one k: fours that are GAP apart.
template <class Tile, class T>
DEVICE void load_each(T (&v)[Tile::EACH], const T* line) {
    UNROLL_FOR (int i = 0; i < Tile::EACH; i += 4) {
        const Vec4<T> x = load4(line + i / 4 * Tile::GAP);
        v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
    }
}

template <class Tile, class A, class B, class C, class Epilogue>
__global__ void __launch_bounds__(Tile::THREADS) tiled_matmul(Sizes n, A a, B b, Output<C> out, Epilogue epilogue) {
    LAUNCH_BOUNDS(Tile::THREADS);
    using T = typename A::Number;
    constexpr int EACH = Tile::EACH, WARPS_ACROSS = Tile::ACROSS / 8;
    SHARED(T, shared);
    const Place tile = place_of_tile(n, Tile::SIDE, Tile::SIDE, blockIdx.x);
    const int64_t row0 = tile.row * Tile::SIDE, column0 = tile.column * Tile::SIDE;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int x = (warp % WARPS_ACROSS * 8 + lane % 8) * 4, y = (warp / WARPS_ACROSS * 4 + lane / 8) * 4;

    Four<Tile, T, !A::transposed> next_a;
    Four<Tile, T, B::transposed> next_b;
    T sum[EACH][EACH] = {};
    next_a.load(a.data, a.stride, row0, n.M, 0, n.K);
    next_b.load(b.data, b.stride, column0, n.N, 0, n.K);
    for (int64_t k0 = 0; k0 < n.K; k0 += Tile::DEPTH) {
        T *part_a = shared + k0 / Tile::DEPTH % 2 * 2 * Tile::PART, *part_b = part_a + Tile::PART;
        next_a.put(part_a);
        next_b.put(part_b);
        __syncthreads();  // this part is there, and nobody reads the other buffer any more
        if (k0 + Tile::DEPTH < n.K) {
            next_a.load(a.data, a.stride, row0, n.M, k0 + Tile::DEPTH, n.K);
            next_b.load(b.data, b.stride, column0, n.N, k0 + Tile::DEPTH, n.K);
        }
        UNROLL_FOR (int k = 0; k < Tile::DEPTH; k++) {
            T va[EACH], vb[EACH];
            load_each<Tile>(va, part_a + k * Tile::LINE + y);
            load_each<Tile>(vb, part_b + k * Tile::LINE + x);
            UNROLL_FOR (int i = 0; i < EACH; i++)
                UNROLL_FOR (int j = 0; j < EACH; j++) sum[i][j] += va[i] * vb[j];
        }
    }
    UNROLL_FOR (int i = 0; i < EACH; i++)
        UNROLL_FOR (int j = 0; j < EACH; j += 4) {
            T v[4] = {sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
            finish(v, out, n, epilogue, row0 + i / 4 * Tile::GAP + y + i % 4, column0 + j / 4 * Tile::GAP + x);
        }
}

struct Tiled {
    template <class T>
    using Stored = T;

    template <class A, class B, class C, class Epilogue = Plain>
    static void matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue = {});

private:
    template <class Tile, class A, class B, class C, class Epilogue>
    static void launch_tiled(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue) {
        launch(tiled_matmul<Tile, A, B, C, Epilogue>, grid_of(n, Tile::SIDE, Tile::SIDE), Tile::THREADS,
               4 * Tile::PART * sizeof(typename A::Number), stream_t(stream), n, a, b, out, epilogue);
    }
};

template <class A, class B, class C, class Epilogue>
void Tiled::matmul(const Sizes& n, A a, B b, Output<C> out, gpu::Stream stream, Epilogue epilogue) {
    if (n.M == 0 || n.N == 0) return;
    if constexpr (sizeof(typename A::Number) < 8) {  // double is for checks, not for speed
        if (tiles_of(n.M, Large::SIDE) * tiles_of(n.N, Large::SIDE) >= LARGE_FROM)
            return launch_tiled<Large>(n, a, b, out, stream, epilogue);
    }
    launch_tiled<Small>(n, a, b, out, stream, epilogue);
}

}  // namespace minillm::gemm
