// What every step of the matmul ladder (matmul.cuh) shares: operands, epilogues, and how a few neighbours are read and
// stored.
#pragma once

#include "cuda/gpu/device.h"
#include "cuda/gpu/gpu.h"

namespace minillm::gemm {

// Element (i, j) of an operand, whose rows in memory are `stride` apart. TRANSPOSED: memory holds its columns as rows.
template <class T, bool TRANSPOSED = false>
struct Matrix {
    using Number = T;
    static constexpr bool transposed = TRANSPOSED;
    const T* data;
    int64_t stride;
    DEVICE const T* at(int64_t i, int64_t j) const { return data + (TRANSPOSED ? j * stride + i : i * stride + j); }
};
template <class T>
using Transposed = Matrix<T, true>;

// C (M, N), rows `stride` apart. add: the matmul is added to what C holds.
template <class T>
struct Output {
    T* data;
    int64_t stride;
    bool add = false;
};

// slice: K may be cut into slices of so many, each with sums of its own; 0: it is not.
struct Sizes {
    int64_t M, N, K, slice = 0;
    DEVICE int64_t begin(int64_t s) const { return s * slice; }
    DEVICE int64_t end(int64_t s) const { return slice && (s + 1) * slice < K ? (s + 1) * slice : K; }
};

// ---- W neighbours of a row, of which the first n exist; the others are read as 0 and not stored ----

template <class T, int W>
DEVICE bool is_whole(const T* p, int64_t n) {
    return n >= W && reinterpret_cast<uintptr_t>(p) % (W * sizeof(T) < 16 ? W * sizeof(T) : 16) == 0;
}

template <class T, class S, int W>
DEVICE void load_numbers(T (&v)[W], const S* from, int64_t n) {
    if constexpr (W == 4) {
        if (is_whole<S, 4>(from, n)) {
            const Vec4<S> x = load4(from);
            v[0] = T(x.x), v[1] = T(x.y), v[2] = T(x.z), v[3] = T(x.w);
            return;
        }
    }
    if constexpr (W == 2) {
        if (is_whole<S, 2>(from, n)) {
            const Vec2<S> x = load2(from);
            v[0] = T(x.x), v[1] = T(x.y);
            return;
        }
    }
    UNROLL_FOR (int i = 0; i < W; i++) v[i] = i < n ? T(from[i]) : T(0);
}

template <class T, class S, int W>
DEVICE void store_numbers(S* to, const T (&v)[W], int64_t n) {
    if constexpr (W == 4) {
        if (is_whole<S, 4>(to, n)) return store4(to, Vec4<S>{S(v[0]), S(v[1]), S(v[2]), S(v[3])});
    }
    if constexpr (W == 2) {
        if (is_whole<S, 2>(to, n)) return store2(to, Vec2<S>{S(v[0]), S(v[1])});
    }
    UNROLL_FOR (int i = 0; i < W; i++)
        if (i < n) to[i] = S(v[i]);
}

// ---- epilogues: what happens to sums v of row `row`, n columns from `column` on, while they are in registers ----

struct Plain {
    template <class T, int W>
    DEVICE void operator()(T (&)[W], int64_t, int64_t, int64_t) const {}
};

template <class T>
struct AddBias {
    const T* bias;  // (N); null: none
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t, int64_t column, int64_t n) const {
        if (!bias) return;
        T b[W];
        load_numbers(b, bias + column, n);
        UNROLL_FOR (int i = 0; i < W; i++) v[i] += b[i];
    }
};

// The last step of every kernel: sums to C by way of the epilogue.
template <class T, int W, class C, class Epilogue>
DEVICE void finish(T (&v)[W], const Output<C>& out, const Sizes& size, const Epilogue& epilogue, int64_t row,
                   int64_t column) {
    if (row >= size.M || column >= size.N) return;
    const int64_t n = size.N - column;
    epilogue(v, row, column, n);
    C* to = out.data + row * out.stride + column;
    if (out.add) {
        T old[W];
        load_numbers(old, to, n);
        UNROLL_FOR (int i = 0; i < W; i++) v[i] += old[i];
    }
    store_numbers(to, v, n);
}

// ---- which tile of C a block has ----

constexpr int GROUP = 8;
struct Place { int64_t row, column, slice; };  // of tiles

inline int64_t tiles_of(int64_t n, int64_t side) { return (n + side - 1) / side; }

inline dim3 grid_of(const Sizes& n, int rows, int columns) {
    const int64_t blocks = tiles_of(n.M, rows) * tiles_of(n.N, columns) * (n.slice ? tiles_of(n.K, n.slice) : 1);
    if (blocks > 0x7fffffff)
        throw std::runtime_error("a matmul has fewer than 2^31 tiles: got " + std::to_string(blocks));
    return dim3(unsigned(blocks));
}

// Blocks that run at one time take tiles of GROUP rows of tiles, column by column, so that few rows of A and columns of
// B are in use at once, and lie in L2. The tiles of the next slice come after all of the one before.
DEVICE Place place_of_tile(const Sizes& n, int rows, int columns, int64_t number) {
    const int64_t down = (n.M + rows - 1) / rows, across = (n.N + columns - 1) / columns;
    const int64_t slice = number / (down * across), id = number - slice * down * across;
    const int64_t first = id / (GROUP * across) * GROUP, high = down - first < GROUP ? down - first : GROUP;
    const int64_t within = id - first * across;
    return {first + within % high, within / high, slice};
}

}  // namespace minillm::gemm
