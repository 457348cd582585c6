// Words of at most 15 bytes as two integers, and hashes: tables find and compare a short word without its text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace minillm::text {
constexpr size_t SHORT_WORD = 15;

struct Key {
    uint64_t low, high;                       // the bytes, and the length in the topmost one; 0, 0 for none
    bool operator==(const Key& other) const { return !((low ^ other.low) | (high ^ other.high)); }    // one branch
    explicit operator bool() const { return high != 0; }
};

struct KeyMasks {
    Key mask[SHORT_WORD + 2];                 // the last: nothing is left of a longer word
    uint64_t tag[SHORT_WORD + 2];
    KeyMasks() : mask(), tag() {
        for (size_t n = 0; n <= SHORT_WORD; n++) {
            mask[n].low = n >= 8 ? ~uint64_t(0) : (uint64_t(1) << (8 * n)) - 1;
            mask[n].high = n <= 8 ? 0 : (uint64_t(1) << (8 * (n - 8))) - 1;
            tag[n] = uint64_t(n) << 56;
        }
    }
};
inline const KeyMasks KEY_MASKS;

// The key of a word, 0 for a long one; reads 16 bytes whatever its length.
inline Key key_of(const char* p, size_t length) {
    Key k;
    memcpy(&k.low, p, 8);
    memcpy(&k.high, p + 8, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    k.low = __builtin_bswap64(k.low), k.high = __builtin_bswap64(k.high);
#endif
    length = length <= SHORT_WORD ? length : SHORT_WORD + 1;
    const Key& mask = KEY_MASKS.mask[length];
    return {k.low & mask.low, (k.high & mask.high) | KEY_MASKS.tag[length]};
}

inline uint64_t mix(uint64_t a, uint64_t b) {
    __uint128_t product = __uint128_t(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
}

inline uint64_t hash_of(const Key& k) { return mix(k.low ^ 0x9E3779B97F4A7C15u, k.high ^ 0xD1B54A32D192ED03u); }

// Of a word of at least 8 bytes; the last 8 may be hashed twice.
inline uint64_t hash_of(const char* p, size_t length) {
    uint64_t h = length ^ 0x9E3779B97F4A7C15u, a;
    for (size_t i = 0; i + 8 < length; i += 8) {
        memcpy(&a, p + i, 8);
        h = mix(h ^ a, 0xD1B54A32D192ED03u);
    }
    memcpy(&a, p + length - 8, 8);
    return mix(h ^ a, 0xA0761D6478BD642Fu);
}
}  // namespace minillm::text
