// Matrices in bfloat16 and int8, as few_rows.h reads them.
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

inline Vec<float> to_float(Bytes b) {
#if defined(__AVX512F__)  // in one instruction, which the compiler does not find
    Vec<int32_t> wide = (Vec<int32_t>)_mm512_maskz_cvtepi8_epi32(0xffff, (__m128i)b);
#elif defined(__AVX2__)
    int64_t bits;
    std::memcpy(&bits, &b, sizeof bits);
    Vec<int32_t> wide = (Vec<int32_t>)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bits));
#else
    Vec<int32_t> wide = __builtin_convertvector(b, Vec<int32_t>);
#endif
    return __builtin_convertvector(wide, Vec<float>);
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
    Bytes bytes(int64_t k, int64_t j, int64_t n) const {
        Bytes b{};
        std::memcpy(&b, data + k * stride + j, n);
        return b;
    }
    void prefetch(int64_t k, int64_t j) const { __builtin_prefetch(data + (k + AHEAD) * stride + j); }
};

}  // namespace minillm
