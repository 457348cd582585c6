// Warp-wide instructions.
#pragma once

#include "words.h"

extern "C" {
// The word that the lane asked for brought. mode: 0 by index, 1 up, 2 down, 3 xor.
uint64_t minillm_cuda_shuffle(int mode, unsigned mask, uint64_t word, int operand, int width);
unsigned __ballot_sync(unsigned mask, int vote);
int __all_sync(unsigned mask, int vote);
int __any_sync(unsigned mask, int vote);
unsigned minillm_cuda_match(int all, unsigned mask, uint64_t value, int* same);
unsigned __activemask();
void minillm_cuda_syncwarp(unsigned mask);
uint64_t minillm_cuda_reduce(int op, unsigned mask, uint64_t value);  // the integers of __reduce_*_sync
}
#define __syncwarp(...) minillm_cuda_syncwarp(::minillm_cuda::mask_of(__VA_ARGS__))

namespace minillm_cuda {
MINILLM_INLINE unsigned mask_of(unsigned mask = ~0u) { return mask; }

template <class T>
MINILLM_INLINE T shuffle(int mode, unsigned mask, T x, int operand, int width) {
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
    uint64_t words[2] = {};
    __builtin_memcpy(words, &x, sizeof x);
    words[0] = minillm_cuda_shuffle(mode, mask, words[0], operand, width);
    if (sizeof x > 8) words[1] = minillm_cuda_shuffle(mode, mask, words[1], operand, width);
    __builtin_memcpy(&x, words, sizeof x);
    return x;
}
template <class T>
MINILLM_INLINE uint64_t word_of(T x) {
    uint64_t word = 0;
    __builtin_memcpy(&word, &x, sizeof x);
    return word;
}
}  // namespace minillm_cuda

template <class T>
MINILLM_INLINE T __shfl_sync(unsigned mask, T x, int lane, int width = 32) {
    return minillm_cuda::shuffle(0, mask, x, lane, width);
}
template <class T>
MINILLM_INLINE T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
    return minillm_cuda::shuffle(1, mask, x, int(by), width);
}
template <class T>
MINILLM_INLINE T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
    return minillm_cuda::shuffle(2, mask, x, int(by), width);
}
template <class T>
MINILLM_INLINE T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32) {
    return minillm_cuda::shuffle(3, mask, x, bits, width);
}
template <class T>
MINILLM_INLINE unsigned __match_any_sync(unsigned mask, T x) {
    return minillm_cuda_match(0, mask, minillm_cuda::word_of(x), nullptr);
}
template <class T>
MINILLM_INLINE unsigned __match_all_sync(unsigned mask, T x, int* same) {
    return minillm_cuda_match(1, mask, minillm_cuda::word_of(x), same);
}
MINILLM_INLINE int __reduce_add_sync(unsigned mask, int x) {
    return int(minillm_cuda_reduce(0, mask, uint64_t(int64_t(x))));
}
MINILLM_INLINE int __reduce_min_sync(unsigned mask, int x) {
    return int(minillm_cuda_reduce(1, mask, uint64_t(int64_t(x))));
}
MINILLM_INLINE int __reduce_max_sync(unsigned mask, int x) {
    return int(minillm_cuda_reduce(2, mask, uint64_t(int64_t(x))));
}
MINILLM_INLINE unsigned __reduce_add_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(0, mask, x));
}
MINILLM_INLINE unsigned __reduce_min_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(1, mask, x));
}
MINILLM_INLINE unsigned __reduce_max_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(2, mask, x));
}
MINILLM_INLINE unsigned __reduce_and_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(3, mask, x));
}
MINILLM_INLINE unsigned __reduce_or_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(4, mask, x));
}
MINILLM_INLINE unsigned __reduce_xor_sync(unsigned mask, unsigned x) {
    return unsigned(minillm_cuda_reduce(5, mask, x));
}
