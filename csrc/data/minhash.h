// MinHash signatures (Broder 1997) and the keys of LSH's bands.
//
//   signature[k] = min over shingles h of a[k] * h + b[k]   (mod 2^32; a odd)
//
// h is the upper half of a shingle's 64-bit hash. An odd multiplier makes each function a permutation of the 32-bit
// numbers, so two sets agree in place k just when the same element is the least of both. Vectors run over k: a block
// of permutations stays in registers while all shingles pass. Every instruction set computes the same integers.
#pragma once

#include "shingles.h"

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"       // GCC's own header, where it means "any value"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

constexpr size_t BLOCK = 64;                  // permutations are padded to a multiple of it

using Minima = void (*)(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least);

static void minima_scalar(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
    for (size_t i = 0; i < count; i++) {
        uint32_t h = uint32_t(shingles[i] >> 32);
        for (size_t k = 0; k < BLOCK; k++) least[k] = std::min(least[k], a[k] * h + b[k]);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2")))
static void minima_avx2(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
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

__attribute__((target("avx512f")))
static void minima_avx512(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least) {
    __m512i A[4], B[4], L[4];
    for (int v = 0; v < 4; v++) {
        A[v] = _mm512_loadu_si512(a + 16 * v);
        B[v] = _mm512_loadu_si512(b + 16 * v);
        L[v] = _mm512_loadu_si512(least + 16 * v);
    }
    for (size_t i = 0; i < count; i++) {
        __m512i h = _mm512_set1_epi32(int(shingles[i] >> 32));
        for (int v = 0; v < 4; v++)
            L[v] = _mm512_min_epu32(L[v], _mm512_add_epi32(_mm512_mullo_epi32(A[v], h), B[v]));
    }
    for (int v = 0; v < 4; v++) _mm512_storeu_si512(least + 16 * v, L[v]);
}
#endif

// The instruction sets of this CPU, the best one first.
static std::vector<std::pair<std::string, Minima>> minima_here() {
    std::vector<std::pair<std::string, Minima>> found;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) found.push_back({"avx512", minima_avx512});
    if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", minima_avx2});
#endif
    found.push_back({"scalar", minima_scalar});
    return found;
}

struct Permutations {
    size_t count;
    std::vector<uint32_t> a, b;               // padded with ones and zeros

    Permutations(const uint32_t* a_, const uint32_t* b_, size_t count)
        : count(count), a((count + BLOCK - 1) / BLOCK * BLOCK, 1), b(a.size(), 0) {
        std::copy(a_, a_ + count, a.begin());
        std::copy(b_, b_ + count, b.begin());
    }

    // least: a.size() numbers; all ones where there are no shingles.
    void signature(Minima minima, const std::vector<uint64_t>& shingles, std::vector<uint32_t>& least) const {
        least.assign(a.size(), UINT32_MAX);
        for (size_t k = 0; k < a.size(); k += BLOCK)
            minima(shingles.data(), shingles.size(), &a[k], &b[k], &least[k]);
    }
};

// One 64-bit key a band: its number and its `rows` values of the signature.
inline void band_keys(const uint32_t* signature, size_t bands, size_t rows, uint64_t* keys) {
    for (size_t band = 0; band < bands; band++) {
        uint64_t hash = fold_in(BASE, band);
        for (size_t row = 0; row < rows; row++) hash = fold_in(hash, signature[band * rows + row]);
        keys[band] = mix64(hash);
    }
}
