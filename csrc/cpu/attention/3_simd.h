// The kernels of 3_simd.cpp that bf16.cpp, decode.cpp and the compiled decoding step (cpu/decode.cpp) use as well.
#pragma once

#include <utility>

#include "cpu/attention/heads.h"
#include "cpu/attention/mask.h"
#include "cpu/gemm/tile.h"

namespace minillm::attention {

// The block of queries in work: packed queries, scores, output so far, and each row's running softmax.
template <class T>
struct QueryBlock {
    TileMemory<T> memory;
    int64_t width;                       // HS rounded up to whole vectors
    T *q, *S, *O;                        // (BLOCK, width), (BLOCK, BLOCK), (BLOCK, width)
    T *sums, *top, *shrink;              // (BLOCK, WIDTH): the sum by lanes; (BLOCK); (BLOCK): exp(old top - top)

    explicit QueryBlock(int64_t width) : memory(BLOCK * (2 * width + BLOCK + WIDTH<T> + 2)), width(width) {
        q = memory.data();
        S = q + BLOCK * width;
        O = S + BLOCK * BLOCK;
        sums = O + BLOCK * width;
        top = sums + BLOCK * WIDTH<T>;
        shrink = top + BLOCK;
    }

    void start(Rows<const T> queries, int64_t begin, int64_t end, int64_t rows, int64_t HS, const Options<T>& options);
};

// A thread's memory for one head at a time: packed keys (slots, HS, BLOCK), values (slots, BLOCK, width). A slot for
// each block of keys; but one slot for all if there is one block of queries, which meets each block of keys once.
template <class T>
struct ForwardHead {
    int64_t HS, width, slots;
    TileMemory<T> memory;
    T *keys, *values;
    QueryBlock<T> block;

    ForwardHead(int64_t n_query, int64_t n_key, int64_t HS)
        : HS(HS),
          width(round_up(HS, WIDTH<T>)),
          slots(n_query <= BLOCK ? 1 : (n_key + BLOCK - 1) / BLOCK),
          memory(slots * BLOCK * (HS + width)),
          keys(memory.data()),
          values(keys + slots * BLOCK * HS),
          block(width) {}
};

// One head: queries at positions n_key - n_query ... n_key - 1. logsumexp may be null. R: rows of queries a tile.
// next: the keys that this thread will probably need then.
template <class T, int R>
void attend(ForwardHead<T>& head, Rows<T> out, T* logsumexp, Rows<const T> q, Rows<const T> k, Rows<const T> v,
            int64_t n_query, int64_t n_key, const T* next = nullptr, const Options<T>& options = {});

// A head's arrays for backward: everything of the queries packed once, keys and values block by block.
template <class T>
struct BackwardHead {
    int64_t T_, HS, width, padded;                 // padded: T rounded up to whole blocks
    TileMemory<T> memory;
    T *q, *dout, *dq;                              // (padded, width)
    T *D, *logsumexp;                              // (padded); logsumexp is infinite after T, so that P is 0 there
    T *k, *dk, *dv;                                // (BLOCK, width)
    T *keys, *values;                              // (HS, BLOCK): transposed
    T *P, *dS;                                     // (BLOCK, BLOCK)

    BackwardHead(int64_t T_, int64_t HS)
        : T_(T_),
          HS(HS),
          width(round_up(HS, WIDTH<T>)),
          padded(round_up(T_, BLOCK)),
          memory(padded * (3 * width + 2) + BLOCK * (3 * width + 2 * HS + 2 * BLOCK)) {
        T* next = memory.data();
        auto take = [&](int64_t n) { return std::exchange(next, next + n); };
        q = take(padded * width), dout = take(padded * width), dq = take(padded * width);
        D = take(padded), logsumexp = take(padded);
        k = take(BLOCK * width), dk = take(BLOCK * width), dv = take(BLOCK * width);
        keys = take(HS * BLOCK), values = take(HS * BLOCK);
        P = take(BLOCK * BLOCK), dS = take(BLOCK * BLOCK);
    }
};

// One head of the backward. add: the gradients of keys and values are added to, not those of queries.
template <class T>
void backward_head(BackwardHead<T>& head, const HeadRows<T>& d, Rows<const T> dout, const HeadRows<const T>& x,
                   Rows<const T> out, const T* logsumexp, bool add = false, const Options<T>& options = {});

}  // namespace minillm::attention
