// The attention of one head with products in bfloat16: what bf16.cpp and grouped_attention_bf16.cpp share.
#pragma once

#include <utility>

#include "cpu/attention/heads.h"
#include "cpu/attention/mask.h"
#include "cpu/gemm/bf16.h"
#include "cpu/memory/scratch.h"

namespace minillm::attention {

// Sizes of a head in work: its rows are padded with zeros to whole pairs, whole vectors and whole blocks.
struct PairSizes {
    int64_t T, HS, depth, width, blocks;  // depth: pairs of a row
    PairSizes(int64_t T, int64_t HS)
        : T(T), HS(HS), depth(ceil_div(HS, 2)), width(round_up(HS, WIDTH<float>)), blocks(ceil_div(T, BLOCK)) {}
    int64_t across() const { return depth * BLOCK; }     // pairs of a block of rows, as the columns of a factor
    int64_t along() const { return BLOCK / 2 * width; }  // ... as its rows
};

// A thread's memory for one head at a time, forward.
struct PairForward {
    PairSizes n;
    TileMemory<Pair> packed;
    TileMemory<float> numbers;
    Pair *keys, *values;                // of every block: the right-hand factors of Q K^T and of P V
    Pair *q, *P;                        // of a block of queries: (BLOCK, depth), (BLOCK, BLOCK / 2)
    float *S, *O, *sums, *top, *shrink;  // (BLOCK, BLOCK), (BLOCK, width), (BLOCK, WIDTH), (BLOCK), (BLOCK)

    PairForward(int64_t T, int64_t HS)
        : n(T, HS),
          packed(n.blocks * (n.across() + n.along()) + BLOCK * (n.depth + BLOCK / 2)),
          numbers(BLOCK * (BLOCK + n.width + WIDTH<float> + 2)) {
        keys = packed.data(), values = keys + n.blocks * n.across();
        q = values + n.blocks * n.along(), P = q + BLOCK * n.depth;
        S = numbers.data(), O = S + BLOCK * BLOCK, sums = O + BLOCK * n.width;
        top = sums + BLOCK * WIDTH<float>, shrink = top + BLOCK;
    }
};

// Writes out, and rounded: the same in bfloat16.
void attend_pairs(PairForward& head, Rows<float> out, Rows<bf16> rounded, float* logsumexp, Rows<const bf16> q,
                  Rows<const bf16> k, Rows<const bf16> v, const Options<float>& options = {},
                  bool instruction = has_dot_instruction());

// The same for the backward: everything of the queries packed once, keys and values block by block.
struct PairBackward {
    PairSizes n;
    TileMemory<Pair> packed;
    TileMemory<float> numbers;
    Pair *q_across, *q_along, *dout_across,
        *dout_along;  // of every block of queries, as both kinds of right-hand factor
    Pair *k, *v, *k_along;  // of a block of keys: (BLOCK, depth), (BLOCK, depth), a factor
    Pair *P, *dS, *dS_along;  // (keys, pairs of queries) twice, (pairs of keys, queries)
    bf16* dout;  // (T, HS)
    float *S, *dP, *dk, *dv, *dq;  // (BLOCK, BLOCK) twice, (BLOCK, width) twice, (T, width)
    float *D, *logsumexp;  // (T), the second in powers of 2

    PairBackward(int64_t T, int64_t HS)
        : n(T, HS),
          packed(n.blocks * 2 * (n.across() + n.along()) + 2 * BLOCK * n.depth + n.along() + 2 * BLOCK * BLOCK +
                 n.blocks * BLOCK * n.depth),
          numbers(2 * BLOCK * (BLOCK + n.width) + n.blocks * BLOCK * (n.width + 2)) {
        Pair* next = packed.data();
        auto take = [&](int64_t size) { return std::exchange(next, next + size); };
        q_across = take(n.blocks * n.across()), dout_across = take(n.blocks * n.across());
        q_along = take(n.blocks * n.along()), dout_along = take(n.blocks * n.along());
        k_along = take(n.along()), k = take(BLOCK * n.depth), v = take(BLOCK * n.depth);
        P = take(BLOCK * BLOCK / 2), dS = take(BLOCK * BLOCK / 2), dS_along = take(BLOCK * BLOCK / 2);
        dout = (bf16*)take(n.blocks * BLOCK * n.depth);
        S = numbers.data(), dP = S + BLOCK * BLOCK, dk = dP + BLOCK * BLOCK, dv = dk + BLOCK * n.width;
        dq = dv + BLOCK * n.width, D = dq + n.blocks * BLOCK * n.width, logsumexp = D + n.blocks * BLOCK;
    }
};

// add: the gradients of keys and values are added to, not those of queries.
void backward_pairs(PairBackward& head, const HeadRows<float>& d, Rows<const float> dout, const HeadRows<const bf16>& x,
                    Rows<const bf16> out, const float* logsumexp, bool add = false, const Options<float>& options = {},
                    bool instruction = has_dot_instruction());

}  // namespace minillm::attention
