// The minima of MinHash, once for each instruction set.
#include "data/minhash.h"

#if defined(__x86_64__)
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"       // in GCC's own header, where it means "any value"
#endif
#include <immintrin.h>
#endif

namespace minillm::data {
namespace {

void minima_scalar(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
    for (size_t i = 0; i < count; i++) {
        uint32_t h = uint32_t(shingles[i] >> 32);
        for (size_t k = 0; k < BLOCK; k++) least[k] = std::min(least[k], a[k] * h + b[k]);
    }
}

#if defined(__x86_64__)
[[gnu::target("avx2")]]
void minima_avx2(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
    for (size_t k = 0; k < BLOCK; k += 32) {
        __m256i A[4], B[4], L[4];
        for (int v = 0; v < 4; v++) {
            A[v] = _mm256_loadu_si256((const __m256i*)(a + k + 8 * v));
            B[v] = _mm256_loadu_si256((const __m256i*)(b + k + 8 * v));
            L[v] = _mm256_loadu_si256((const __m256i*)(least + k + 8 * v));
        }
        for (size_t i = 0; i < count; i++) {
            __m256i h = _mm256_set1_epi32(int(shingles[i] >> 32));
            for (int v = 0; v < 4; v++)
                L[v] = _mm256_min_epu32(L[v], _mm256_add_epi32(_mm256_mullo_epi32(A[v], h), B[v]));
        }
        for (int v = 0; v < 4; v++) _mm256_storeu_si256((__m256i*)(least + k + 8 * v), L[v]);
    }
}

[[gnu::target("avx512f")]]
void minima_avx512(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
    __m512i A[4], B[4], L[4];
    for (int v = 0; v < 4; v++) {
        A[v] = _mm512_loadu_si512(a + 16 * v);
        B[v] = _mm512_loadu_si512(b + 16 * v);
        L[v] = _mm512_loadu_si512(least + 16 * v);
    }
    for (size_t i = 0; i < count; i++) {
        __m512i h = _mm512_set1_epi32(int(shingles[i] >> 32));
        for (int v = 0; v < 4; v++) L[v] = _mm512_min_epu32(L[v], _mm512_add_epi32(_mm512_mullo_epi32(A[v], h), B[v]));
    }
    for (int v = 0; v < 4; v++) _mm512_storeu_si512(least + 16 * v, L[v]);
}
#endif

}  // namespace

std::vector<std::pair<std::string, Minima>> minima_here() {
    std::vector<std::pair<std::string, Minima>> found;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) found.push_back({"avx512", minima_avx512});
    if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", minima_avx2});
#endif
    found.push_back({"scalar", minima_scalar});
    return found;
}
}  // namespace minillm::data
