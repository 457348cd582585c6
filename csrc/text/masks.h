// Classes of bytes as bit masks, 64 bytes at a time, for the patterns that are cut without a branch for each word
// (pretokenize.h, runs.h).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "text/patterns.h"

namespace minillm::text {
// Since Haswell counting and finding bits are instructions, and 32 bytes are classified at a time: what cuts is compiled
// with them, too, and run if they are there.
#if defined(__x86_64__) && defined(__GNUC__)
#define TARGET_HASWELL __attribute__((target("avx2,bmi,bmi2,popcnt")))
inline const bool HASWELL = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                            __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
#else
#define TARGET_HASWELL
constexpr bool HASWELL = false;
#endif

// ---- 64 bytes at a time

// One bit a byte: letters, digits, the space, all white space, apostrophes, and bytes of longer characters.
struct Masks { uint64_t letter, digit, blank, space, quote, high; };

#ifdef __SSE2__
inline Masks classify(const char* p) {
    Masks m{};
    auto below = [](__m128i v, char from, char count) {  // from <= v < from + count, unsigned
        __m128i shifted = _mm_sub_epi8(v, _mm_set1_epi8(char(from + 128)));
        return _mm_cmplt_epi8(shifted, _mm_set1_epi8(char(count - 128)));
    };
    for (int i = 0; i < 4; i++) {
        __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
        __m128i blank = _mm_cmpeq_epi8(v, _mm_set1_epi8(' '));
        auto bits = [&](__m128i mask) { return uint64_t(uint32_t(_mm_movemask_epi8(mask))) << (16 * i); };
        m.letter |= bits(below(_mm_or_si128(v, _mm_set1_epi8(32)), 'a', 26));
        m.digit |= bits(below(v, '0', 10));
        m.blank |= bits(blank);
        m.space |= bits(_mm_or_si128(blank, below(v, '\t', 5)));
        m.quote |= bits(_mm_cmpeq_epi8(v, _mm_set1_epi8('\'')));
        m.high |= bits(v);
    }
    return m;
}
#else
inline Masks classify(const char* p) {
    Masks m{};
    for (int i = 0; i < 64; i++) {
        uint8_t c = p[i], kind = c < 0x80 ? KINDS.kind[c] : 0;
        m.letter |= uint64_t(kind & LETTER ? 1 : 0) << i;
        m.digit |= uint64_t(kind & NUMBER ? 1 : 0) << i;
        m.space |= uint64_t(kind & SPACE ? 1 : 0) << i;
        m.blank |= uint64_t(c == ' ') << i;
        m.quote |= uint64_t(c == '\'') << i;
        m.high |= uint64_t(c >> 7) << i;
    }
    return m;
}
#endif

// The first bytes of longer characters, and those of Chinese characters (U+5000 to U+8FFF) and of other letters, also
// Chinese and Hangul (U+9000 to U+9FFF, U+B000 to U+CFFF), of three bytes each.
struct Leads { uint64_t lead, han, letter; };

#ifdef __SSE2__
inline Leads classify_leads(const char* p) {
    Leads m{};
    for (int i = 0; i < 4; i++) {
        __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
        auto from = [&](int byte) { return _mm_cmpgt_epi8(v, _mm_set1_epi8(char(byte - 1))); };  // of high bytes
        auto bits = [&](__m128i mask) { return uint64_t(uint32_t(_mm_movemask_epi8(mask))) << (16 * i); };
        __m128i nine = _mm_cmpeq_epi8(v, _mm_set1_epi8(char(0xE9))), hangul = _mm_andnot_si128(from(0xED), from(0xEB));
        m.lead |= bits(_mm_and_si128(from(0xC0), v));
        m.han |= bits(_mm_and_si128(_mm_andnot_si128(from(0xE9), from(0xE5)), v));
        m.letter |= bits(_mm_and_si128(_mm_or_si128(nine, hangul), v));
    }
    return m;
}
#else
inline Leads classify_leads(const char* p) {
    Leads m{};
    for (int i = 0; i < 64; i++) {
        uint8_t c = p[i];
        m.lead |= uint64_t(c >= 0xC0) << i;
        m.han |= uint64_t(c >= 0xE5 && c < 0xE9) << i;
        m.letter |= uint64_t(c == 0xE9 || c == 0xEB || c == 0xEC) << i;
    }
    return m;
}
#endif

// The bytes from `first` to `first` + count - 1.
inline uint64_t in_range(const char* p, char first, char count) {
    uint64_t found = 0;
#ifdef __SSE2__
    for (int i = 0; i < 4; i++) {
        __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
        __m128i shifted = _mm_sub_epi8(v, _mm_set1_epi8(char(first + 128)));
        __m128i within = _mm_cmplt_epi8(shifted, _mm_set1_epi8(char(count - 128)));
        found |= uint64_t(uint32_t(_mm_movemask_epi8(within))) << (16 * i);
    }
#else
    for (int i = 0; i < 64; i++) found |= uint64_t(uint8_t(p[i] - first) < count) << i;
#endif
    return found;
}

constexpr uint8_t WIDE = 0xE3;  // the least first byte of characters from U+3000 on

// Whether there is a byte of at least `least`, which is no ASCII.
inline bool any_from(uint8_t least, const char* p, size_t length) {
    size_t i = 0;
#ifdef __SSE2__
    __m128i most = _mm_setzero_si128();
    for (; i + 16 <= length; i += 16)
        most = _mm_max_epu8(most, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i)));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(most, _mm_set1_epi8(char(least))), most))) return true;
#endif
    for (; i < length; i++)
        if (uint8_t(p[i]) >= least) return true;
    return false;
}

inline int lowest_bit(uint64_t mask) { return __builtin_ctzll(mask); }

#define INLINED __attribute__((always_inline)) inline

constexpr size_t CHUNK = 1 << 14;  // bytes cut at a time; the masks of a chunk stay in L1
constexpr size_t PAD = 64;  // readable bytes that must follow a chunk
constexpr size_t SIGHT = 8;  // a start this far before the chunk's end depends on nothing behind it

// The bits of a chunk, and what all patterns do with them.
struct ChunkMasks {
    static constexpr size_t WORDS = (CHUNK + PAD) / 64 + 2;
    uint64_t letter[WORDS], digit[WORDS], space[WORDS], blank[WORDS], quote[WORDS], newline[WORDS], upper[WORDS],
        slash[WORDS], high[WORDS], start[WORDS];

    // The classes of all ASCII characters; `high` are the bytes of longer ones.
    void classify_bytes(const char* base, size_t blocks) {
        letter[blocks] = digit[blocks] = space[blocks] = upper[blocks] = 0;
        if (HASWELL) classify_haswell(base, blocks);
        else classify_any(base, blocks);
    }

    void classify_any(const char* base, size_t blocks) {
        for (size_t b = 0; b < blocks; b++) {
            const char* p = base + 64 * b;
            Masks m = classify(p);
            letter[b] = m.letter, digit[b] = m.digit, space[b] = m.space, blank[b] = m.blank, quote[b] = m.quote;
            high[b] = m.high, upper[b] = in_range(p, 'A', 26), slash[b] = in_range(p, '/', 1);
            newline[b] = in_range(p, '\n', 1) | in_range(p, '\r', 1);
        }
    }

#if defined(__x86_64__) && defined(__GNUC__)
    // Two tables at a time say of which classes the halves of a byte may be; it is of those that both say (the idea of
    // Langdale and Lemire's simdjson). A class is a bit: letters in columns 4 and 6 of the table of ASCII, in 5 and 7,
    // digits, \t \v \f, newlines, the blank, the apostrophe, the slash.
    TARGET_HASWELL void classify_haswell(const char* base, size_t blocks) {
        const __m256i lows = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            char(2 | 4 | 32), 7, 7, 7, 7, 7, 7, 7 | 64, 7, 7 | 8, 3 | 16, 1 | 8, 1 | 8, 1 | 16, 1, char(1 | 128)));
        const __m256i highs = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(8 | 16, 0, char(32 | 64 | 128), 4, 1, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0));
        const __m256i nibble = _mm256_set1_epi8(15), white = _mm256_set1_epi8(8 | 16 | 32);
        for (size_t b = 0; b < blocks; b++) {
            uint64_t found[9] = {};
            for (int half = 0; half < 2; half++) {
                __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(base + 64 * b + 32 * half));
                __m256i high_half = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
                __m256i c = _mm256_and_si256(_mm256_shuffle_epi8(lows, _mm256_and_si256(v, nibble)),
                                             _mm256_shuffle_epi8(highs, high_half));
                __m256i spaces = _mm256_cmpgt_epi8(_mm256_and_si256(c, white), _mm256_setzero_si256());
                __m256i letters = _mm256_or_si256(_mm256_slli_epi16(c, 7), _mm256_slli_epi16(c, 6));
                const __m256i by_class[] = {letters,
                                            _mm256_slli_epi16(c, 5),
                                            spaces,
                                            _mm256_slli_epi16(c, 2),
                                            _mm256_slli_epi16(c, 1),
                                            _mm256_slli_epi16(c, 3),
                                            _mm256_slli_epi16(v, 2),
                                            c,
                                            v};
                for (int i = 0; i < 9; i++)
                    found[i] |= uint64_t(uint32_t(_mm256_movemask_epi8(by_class[i]))) << (32 * half);
            }
            letter[b] = found[0], digit[b] = found[1], space[b] = found[2], blank[b] = found[3], quote[b] = found[4];
            newline[b] = found[5], upper[b] = found[0] & ~found[6], slash[b] = found[7], high[b] = found[8];
        }
    }
#else
    void classify_haswell(const char*, size_t) {}
#endif

    static void add(uint64_t* mask, size_t from, size_t count) {
        for (size_t i = from; i < from + count; i++) mask[i >> 6] |= uint64_t(1) << (i & 63);
    }
    static bool has(const uint64_t* mask, size_t i) { return mask[i >> 6] >> (i & 63) & 1; }
    static void set(uint64_t* mask, size_t i, bool on) {
        uint64_t bit = uint64_t(1) << (i & 63);
        mask[i >> 6] = on ? mask[i >> 6] | bit : mask[i >> 6] & ~bit;
    }

    // The three bytes of each character that begins in a block at `leads`.
    static void add_three(uint64_t* mask, size_t block, uint64_t leads) {
        mask[block] |= leads | leads << 1 | leads << 2;
        mask[block + 1] |= leads >> 63 | leads >> 62;
    }

    // Calls use(i, character) for each character that begins in a block at `leads`.
    template <class F>
    static void each_of(const char* base, size_t length, size_t block, uint64_t leads, F use) {
        for (; leads; leads &= leads - 1) {
            size_t i = block * 64 + lowest_bit(leads);
            if (i < length) use(i, char_at(base + i, base + length));
        }
    }

    // The set bits of `start` as numbers, eight at a time: the count of a block is hard to predict, its eighth part is
    // not.
    INLINED size_t places(size_t blocks, uint32_t* starts) {
        uint32_t* out = starts;
        for (size_t b = 0; b < blocks; b++) {
            uint64_t mask = start[b];
            int count = __builtin_popcountll(mask);
            uint32_t* p = out;
            for (int done = 0; done < count; done += 8)
                for (int i = 0; i < 8; i++) {
                    *p++ = uint32_t(64 * b + (mask ? lowest_bit(mask) : 0));
                    mask &= mask - 1;
                }
            out += count;
        }
        return out - starts;
    }
};
}  // namespace minillm::text
