// Dropout's mask as a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
// keep[i] = bits(i) >= ceil(p * 2^32). bits(i) is Philox 4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random
// numbers: as easy as 1, 2, 3"): ten rounds of two 64 x 64 -> 128 bit products; one call of it serves eight elements. That
// is dear beside one multiplication, so forward caches keep, a bit an element (1/32 of x), and backward draws nothing.
// Any element can be drawn by itself.
#pragma once

#include <cmath>

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"
#include "python/array.h"

namespace minillm::dropout {

struct PhiloxKey { uint64_t seed, step, site; };

inline void philox_round(uint64_t c[4], uint64_t k0, uint64_t k1) {
    typedef unsigned __int128 Wide;
    Wide a = Wide(0xD2E7470EE14C6C93u) * c[0], b = Wide(0xCA5A826395121157u) * c[2];
    c[0] = uint64_t(b >> 64) ^ c[1] ^ k0;
    c[1] = uint64_t(b);
    c[2] = uint64_t(a >> 64) ^ c[3] ^ k1;
    c[3] = uint64_t(a);
}

// keep of the elements 8 * block ... 8 * block + 7, one bit each, the first lowest. Each of the four words gives 32
// bits to two of them, the low half first. Counter word 0 starts at 1, as in NumPy.
inline uint8_t keep_block(uint64_t block, const PhiloxKey& key, uint64_t complement) {
    uint64_t c[4] = {block + 1, key.step, key.site, 0};
    UNROLL_FOR (uint64_t round = 0; round < 10; round++)
        philox_round(c, key.seed + round * 0x9E3779B97F4A7C15u, round * 0xBB67AE8584CAA73Bu);
    uint64_t keep = 0;
    for (int word = 3; word >= 0; word--) {  // bits + (2^32 - threshold) reaches 2^32 if kept
        keep = keep * 2 + (((c[word] >> 32) + complement) >> 32);
        keep = keep * 2 + (((c[word] & 0xFFFFFFFF) + complement) >> 32);
    }
    return uint8_t(keep);
}

constexpr int64_t GROUP = 1024;  // elements, a multiple of 8

inline void mask_kernel(uint8_t* keep, int64_t n, double p, const PhiloxKey& key) {
    const uint64_t complement = (uint64_t(1) << 32) - uint64_t(std::ceil(p * 4294967296.0));
#pragma omp parallel for schedule(static) if (n > GROUP)
    for (int64_t group = 0; group < (n + GROUP - 1) / GROUP; group++)
        for (int64_t i = group * GROUP; i < std::min(n, (group + 1) * GROUP); i += 8)
            keep[i / 8] = keep_block(uint64_t(i) / 8, key, complement);
}

// v in the lanes whose bits are set, 0 in the others. Lane 0 is element i.
template <class T>
inline Vec<T> kept(Vec<T> v, const uint8_t* keep, int64_t i) {
    typedef typename LaneInt<T>::type Int;
    uint32_t word;
    std::memcpy(&word, keep + i / 8, sizeof word);
    Int bits = word >> i % 8 & 0xffff;
    return (bits & (Int(1) - Lanes<T>{}) << lane_numbers<T>()) != 0 ? v : Vec<T>{};
}

inline PhiloxKey philox_key(const Tuple& key, const char* name = "key") {
    auto word = [&](int64_t i) { return i < key.size() ? to<uint64_t>(key[i]) : std::nullopt; };
    auto seed = word(0), step = word(1), site = word(2);
    if (key.size() == 3 && seed && step && site) return {*seed, *step, *site};
    fail(name, " must be (seed, step, site), three integers in [0, 2^64): got ", key);
}

constexpr int64_t mask_bytes(int64_t n) { return (n + 7) / 8 + 3; }  // and what `kept` may look at

}  // namespace minillm::dropout
