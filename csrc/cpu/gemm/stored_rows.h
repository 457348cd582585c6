// Matrices in bfloat16, int8 and int4, as few_rows.h reads them.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/gemm/few_rows.h"
#include "cpu/simd/bfloat16.h"

namespace minillm {

constexpr int64_t AHEAD = 16;  // rows of B between a prefetch and its use

struct Bf16Rows {
    typedef float Number;
    const bf16* data;
    int64_t stride;
    Bf16Rows from(int64_t k) const { return {data + k * stride, stride}; }
    Vec<float> at(int64_t k, int64_t j) const { return part(k, j, WIDTH<float>); }
    Vec<float> part(int64_t k, int64_t j, int64_t n) const { return to_float(load_part(data + k * stride + j, n)); }
    void prefetch(int64_t k, int64_t j) const { __builtin_prefetch(data + (k + AHEAD) * stride + j); }
};

typedef int8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4)));  // WIDTH<float> of them

inline Vec<int32_t> widened(Bytes b) {
#if defined(__AVX512F__)  // in one instruction, which the compiler does not find
    return (Vec<int32_t>)_mm512_maskz_cvtepi8_epi32(0xffff, (__m128i)b);
#elif defined(__AVX2__)
    int64_t bits;
    std::memcpy(&bits, &b, sizeof bits);
    return (Vec<int32_t>)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bits));
#else
    return __builtin_convertvector(b, Vec<int32_t>);
#endif
}

inline Vec<float> to_float(Bytes b) { return __builtin_convertvector(widened(b), Vec<float>); }

inline Bytes load_bytes(const int8_t* data, int64_t n) {
    Bytes b{};
    std::memcpy(&b, data, n);
    return b;
}

// value[k, n] * scale[k / group, n]; group is a multiple of DEPTH, or K
struct Int8Rows {
    typedef float Number;
    const int8_t* data;
    const float* scales;
    int64_t stride, group;
    Int8Rows from(int64_t k) const { return {data + k * stride, scales + k / group * stride, stride, group}; }
    Vec<float> at(int64_t k, int64_t j) const { return to_float(bytes(k, j, WIDTH<float>)) * load(scales + j); }
    Vec<float> part(int64_t k, int64_t j, int64_t n) const {
        return to_float(bytes(k, j, n)) * load_part(scales + j, n);
    }
    Bytes bytes(int64_t k, int64_t j, int64_t n) const { return load_bytes(data + k * stride + j, n); }
    void prefetch(int64_t k, int64_t j) const { __builtin_prefetch(data + (k + AHEAD) * stride + j); }
};

// The same of numbers in [-7, 7], of which a byte holds those of two rows: of an even one in its low half, of the next in
// its high half.
struct Int4Rows {
    typedef float Number;
    const int8_t* data;
    const float* scales;
    int64_t stride, group, odd;  // odd: of the first row, 0 or 1
    Int4Rows from(int64_t k) const {
        return {data + k / 2 * stride, scales + k / group * stride, stride, group, k % 2};
    }
    Vec<float> at(int64_t k, int64_t j) const { return numbers(k, j, WIDTH<float>) * load(scales + j); }
    Vec<float> part(int64_t k, int64_t j, int64_t n) const { return numbers(k, j, n) * load_part(scales + j, n); }
    Vec<float> numbers(int64_t k, int64_t j, int64_t n) const {
        Vec<int32_t> wide = widened(load_bytes(data + (k + odd) / 2 * stride + j, n));
        const int high = (k + odd) % 2;
        return __builtin_convertvector((wide << (28 - 4 * high)) >> 28, Vec<float>);  // its four bits, with their sign
    }
    void prefetch(int64_t k, int64_t j) const { __builtin_prefetch(data + (k + AHEAD) / 2 * stride + j); }
};

}  // namespace minillm
