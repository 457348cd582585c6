// Text -> items -> shingles. The readable version, with the definition: minillm/data/minhash.py.
//
//   words       maximal runs of ASCII letters and digits and of bytes above 127 (Python has made other separators
//               spaces), lower case. 64 bytes are classified at a time into one bit each; where the bits change, words
//               begin and end.
//   items       a 64-bit hash of each word; or of each code point, with one space between words.
//   shingles    every n items in a row: a polynomial of their hashes, rolled along, then mixed so that all bits count.
//
// All arithmetic is modulo 2^64, so results are the same everywhere.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace minillm::data {
constexpr uint64_t MULTIPLIER = 0x9E3779B97F4A7C15u, BASE = 0xD1B54A32D192ED03u;

inline uint64_t fold_in(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * MULTIPLIER;
    return hash ^ (hash >> 32);
}

// MurmurHash3's finaliser (Appleby): a bijection in which every bit of the result depends on every bit.
inline uint64_t mix64(uint64_t h) {
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDu;
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53u;
    return h ^ (h >> 33);
}

inline bool is_word_byte(uint8_t c) { return c >= 128 || uint8_t(c - '0') < 10 || uint8_t((c | 32) - 'a') < 26; }

// One bit for each of 64 bytes: does it belong to a word?
inline uint64_t word_bits(const uint8_t* p) {
    uint64_t bits = 0;
#ifdef __SSE2__
    auto below = [](__m128i x, char first, char count) {               // first <= x < first + count, unsigned
        __m128i shifted = _mm_add_epi8(_mm_sub_epi8(x, _mm_set1_epi8(first)), _mm_set1_epi8(-128));
        return _mm_cmplt_epi8(shifted, _mm_set1_epi8(char(count - 128)));
    };
    for (int i = 0; i < 4; i++) {
        __m128i x = _mm_loadu_si128((const __m128i*)(p + 16 * i));
        __m128i word = _mm_or_si128(below(x, '0', 10), below(_mm_or_si128(x, _mm_set1_epi8(32)), 'a', 26));
        bits |= uint64_t(uint32_t(_mm_movemask_epi8(_mm_or_si128(word, x)))) << (16 * i);  // x: bytes above 127
    }
#else
    for (int i = 0; i < 64; i++) bits |= uint64_t(is_word_byte(p[i])) << i;
#endif
    return bits;
}

constexpr size_t MARGIN = 128;                // bytes that may be read behind a text's copy

class Shingler {
    std::vector<uint8_t> copy;                // the text, lower case, and zeros
    std::vector<uint64_t> items;

    // ASCII to lower case; Python has already done so for all other letters.
    void copy_lower(const char* text, size_t length) {
        copy.resize(length + MARGIN);
        uint8_t* out = copy.data();
        for (size_t i = 0; i < length; i++) {
            uint8_t c = uint8_t(text[i]);
            out[i] = c | (uint8_t(c - 'A') < 26 ? 32 : 0);
        }
        memset(out + length, 0, MARGIN);
    }

    // use(begin, end) for each word.
    template <class F>
    void each_word(size_t length, F use) const {
        const uint8_t* p = copy.data();
        uint64_t before = 0;                  // 1: the last byte was a word's
        size_t begin = 0;
        for (size_t at = 0; at <= length; at += 64) {         // the zeros behind the text end its last word
            uint64_t bits = word_bits(p + at);
            for (uint64_t changes = bits ^ (bits << 1 | before); changes; changes &= changes - 1) {
                size_t place = at + size_t(__builtin_ctzll(changes));
                if (bits >> (place - at) & 1) begin = place;
                else use(p + begin, p + place);
            }
            before = bits >> 63;
        }
    }

    static uint64_t word_hash(const uint8_t* p, const uint8_t* end) {
        uint64_t hash = BASE, chunk;
        for (; end - p >= 8; p += 8) {
            memcpy(&chunk, p, 8);
            hash = fold_in(hash, little_endian(chunk));
        }
        if (p == end) return hash;
        memcpy(&chunk, p, 8);
        return fold_in(hash, little_endian(chunk) & ((uint64_t(1) << (8 * (end - p))) - 1));
    }

    static uint64_t little_endian(uint64_t x) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        return __builtin_bswap64(x);
#else
        return x;
#endif
    }

    void add_characters(const uint8_t* p, const uint8_t* end) {
        if (!items.empty()) items.push_back(fold_in(BASE, ' '));
        while (p < end) {
            size_t n = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;      // Python's UTF-8 is always valid
            uint32_t point = n == 1 ? *p : *p & (0x7Fu >> n);
            for (size_t i = 1; i < n; i++) point = point << 6 | (p[i] & 63);
            items.push_back(fold_in(BASE, point));
            p += n;
        }
    }

    // With fewer than n items there is one shingle, of all of them; with none there is none.
    void roll(size_t n, std::vector<uint64_t>& shingles) const {
        if (items.empty()) return;
        n = std::min(n, items.size());
        uint64_t hash = 0, last = 1;          // last: BASE^n
        for (size_t i = 0; i < n; i++) hash = hash * BASE + items[i], last *= BASE;
        size_t count = items.size() - n + 1, first = shingles.size();
        shingles.resize(first + count);
        uint64_t* out = shingles.data() + first;
        *out++ = mix64(hash);
        for (size_t i = n; i < items.size(); i++) {
            hash = hash * BASE + (items[i] - items[i - n] * last);
            *out++ = mix64(hash);
        }
    }

public:
    // Appends the text's shingles, in their order and with repeats.
    void operator()(const char* text, size_t length, size_t n, bool characters, std::vector<uint64_t>& shingles) {
        copy_lower(text, length);
        items.clear();
        if (characters) each_word(length, [&](const uint8_t* p, const uint8_t* end) { add_characters(p, end); });
        else each_word(length, [&](const uint8_t* p, const uint8_t* end) { items.push_back(word_hash(p, end)); });
        roll(n, shingles);
    }
};
}  // namespace minillm::data
