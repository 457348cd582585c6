// MinHash signatures (Broder 1997) and the keys of LSH's bands.
//
//   signature[k] = min over shingles h of a[k] * h + b[k]   (mod 2^32; a odd)
//
// h is the upper half of a shingle's 64-bit hash. An odd multiplier makes each function a permutation of the 32-bit
// numbers, so two sets agree in place k just when the same element is the least of both. Vectors run over k: a block
// of permutations stays in registers while all shingles pass. Every instruction set computes the same integers.
#pragma once

#include <string>
#include <utility>

#include "data/shingles.h"
#include "text/parallel.h"

namespace minillm::data {
constexpr size_t BLOCK = 64;                  // permutations are padded to a multiple of it

using Minima = void (*)(const uint64_t* shingles, size_t count, const uint32_t* a, const uint32_t* b, uint32_t* least);

// Those of the instruction sets of this CPU, the best one first.
std::vector<std::pair<std::string, Minima>> minima_here();

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
        for (size_t k = 0; k < a.size(); k += BLOCK) minima(shingles.data(), shingles.size(), &a[k], &b[k], &least[k]);
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

// For each text: use(i, shingles, signature), by several threads at once.
template <class F>
void sign_each(const Texts& texts, size_t n, bool characters, const Permutations& permutations, Minima minima,
               size_t threads, F use) {
    struct State {
        Shingler shingler;
        std::vector<uint64_t> shingles;
        std::vector<uint32_t> signature;
    };
    std::vector<State> states(threads);
    parallel(texts.size(), threads, [&](size_t thread, size_t i) {
        State& state = states[thread];
        state.shingles.clear();
        state.shingler(texts[i].data(), texts[i].size(), n, characters, state.shingles);
        permutations.signature(minima, state.shingles, state.signature);
        use(i, state.shingles, state.signature);
    });
}
}  // namespace minillm::data
