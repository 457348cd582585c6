// bfloat16: the upper half of a float. Its range, with 8 bits of precision in place of 24.
//
// Half the memory, and products of two such numbers are exact in float, so machines multiply pairs of them at once: see
// gemm/bf16.h. Rounding is to nearest, ties to even, in arithmetic on integers that every machine has.
#pragma once

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"

namespace minillm {

struct bf16 { uint16_t bits; };

typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));  // WIDTH<float> of them
template <>
struct VecOf<bf16> {
    typedef Halves type;
};
typedef Vec<uint32_t> Bits;
typedef uint32_t Pair;  // two bfloat16, neighbours in k of a matmul

// Each float rounded to bfloat16, in the upper half of its lane; the lower half is left over. Adding just under half of
// the last kept bit, and a whole half if that bit is odd, carries into it exactly when it must. A NaN stays one.
inline Bits rounded(Vec<float> x) {
    Bits bits = (Bits)x, even = bits + 0x7fff + (bits >> 16 & 1);
    return x == x ? even : bits | 0x400000;
}

inline Halves to_bf16(Vec<float> x) { return __builtin_convertvector(rounded(x) >> 16, Halves); }

inline Vec<float> to_float(Halves h) { return (Vec<float>)(__builtin_convertvector(h, Bits) << 16); }

inline float number(bf16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
inline T number(T x) {
    return x;
}

// The first n of WIDTH<float> numbers; the others are zeros.
inline Halves load_part(const bf16* p, int64_t n) {
    Halves h{};
    if (n == WIDTH<float>) std::memcpy(&h, p, sizeof h);
    else std::memcpy(&h, p, n * sizeof(bf16));
    return h;
}

inline void store_part(bf16* p, Halves h, int64_t n) {
    if (n == WIDTH<float>) std::memcpy(p, &h, sizeof h);  // one instruction
    else std::memcpy(p, &h, n * sizeof(bf16));
}

// The first n numbers as they are computed with, and back to how they are stored.
template <class T>
inline Vec<T> load_numbers(const T* p, int64_t n) {
    return load_part(p, n);
}
inline Vec<float> load_numbers(const bf16* p, int64_t n) { return to_float(load_part(p, n)); }
template <class T>
inline void store_numbers(T* p, Vec<T> v, int64_t n) {
    store_part(p, v, n);
}
inline void store_numbers(bf16* p, Vec<float> v, int64_t n) { store_part(p, to_bf16(v), n); }

// out = x, rounded, in the range.
inline void round_range(bf16* out, const float* x, Range range) {
    constexpr int64_t W = WIDTH<float>;
    int64_t i = range.begin;
    for (; i + W <= range.end; i += W) store_part(out + i, to_bf16(load(x + i)), W);
    if (i < range.end) store_part(out + i, to_bf16(load_part(x + i, range.end - i)), range.end - i);
}

// out = x, rounded. Parallel over blocks.
inline void round_array(bf16* out, const float* x, int64_t n) {
    constexpr int64_t BLOCK = 1 << 13;
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++)
        round_range(out, x, {block * BLOCK, std::min(n, (block + 1) * BLOCK)});
}

}  // namespace minillm
