// Cutting UTF-8 text into words, as the patterns of minillm/tokenizer/pretokenize.py do.
//
//   patterns.h   all patterns, one word at a time.
//   Chunk          gpt2 and smollm only, 64 bytes at a time without a branch per word. Classes of bytes become bit masks, and a
//                  few shifts and ANDs say where words begin (the idea of Langdale and Lemire's simdjson). 3x faster.
//   Cutter         a whole text, chunk by chunk.
//
// No pattern looks behind, so cutting may begin again at any place where a word begins. That is how a long text is
// taken chunk by chunk, and why a chunk's last word is left to the next chunk.
#pragma once

#include <stdexcept>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "text/patterns.h"

namespace minillm::text {
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

inline int lowest_bit(uint64_t mask) { return __builtin_ctzll(mask); }

// Counting and finding bits are instructions since Haswell: Chunk::cut is compiled with them, too, and run if they are
// there.
#if defined(__x86_64__) && defined(__GNUC__)
#define TARGET_HASWELL __attribute__((target("avx2,bmi,bmi2,popcnt")))
inline const bool HASWELL = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                            __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
#else
#define TARGET_HASWELL
constexpr bool HASWELL = false;
#endif
#define INLINED __attribute__((always_inline)) inline

constexpr size_t CHUNK = 1 << 14;  // bytes cut at a time; the masks of a chunk stay in L1
constexpr size_t PAD = 64;  // readable bytes that must follow a chunk
constexpr size_t SIGHT = 8;  // a start this far before the chunk's end depends on nothing behind it

// Where words begin in up to CHUNK + PAD bytes at `base`, gpt2's pattern, or smollm's: the same between single digits.
class Chunk {
    const bool single_digits;
    const uint8_t number;
    static constexpr size_t WORDS = (CHUNK + PAD) / 64 + 2;
    uint64_t letter[WORDS], digit[WORDS], space[WORDS], blank[WORDS], quote[WORDS], start[WORDS], first_byte[WORDS];
    std::vector<uint32_t> wide_spaces;  // white space longer than a byte

    static void add(uint64_t* mask, size_t from, size_t count) {
        for (size_t i = from; i < from + count; i++) mask[i >> 6] |= uint64_t(1) << (i & 63);
    }
    static bool has(const uint64_t* mask, size_t i) { return mask[i >> 6] >> (i & 63) & 1; }
    static void set(uint64_t* mask, size_t i, bool on) {
        uint64_t bit = uint64_t(1) << (i & 63);
        mask[i >> 6] = on ? mask[i >> 6] | bit : mask[i >> 6] & ~bit;
    }

    // Give every byte of the longer characters in a block its character's class.
    void classify_high(const char* base, size_t length, size_t block, uint64_t high) {
        while (high) {
            size_t i = block * 64 + lowest_bit(high);
            high &= high - 1;
            if (i >= length || continues(base[i])) continue;
            Char c = char_at(base + i, base + length);
            if (is(c, LETTER)) add(letter, i, c.length);
            if (is(c, number)) add(digit, i, c.length), set(first_byte, i, true);
            if (is(c, SPACE)) add(space, i, c.length), wide_spaces.push_back(uint32_t(i));
        }
    }

    // `'s` is a word where its apostrophe begins one: no word begins at the s, and the next one behind it.
    void split_contractions(const char* base, size_t length, size_t block, uint64_t quotes) {
        while (quotes) {
            size_t i = block * 64 + lowest_bit(quotes);
            quotes &= quotes - 1;
            if (i >= length || !has(start, i)) continue;
            if (int n = contraction(base + i, base + length, false)) {
                set(start, i + 1, false);
                if (i + n < length) set(start, i + n, true);
            }
        }
    }

    // The rule for white space below takes bytes for characters; put it right where they are longer.
    void fix_wide_spaces(const char* base, size_t length) {
        for (size_t i : wide_spaces) {
            size_t end = i + char_at(base + i, base + length).length;
            for (size_t j = i + 1; j < end; j++) set(start, j, false);
            bool first = i == 0 || !has(space, i - 1), last = end < length && !has(space, end);
            if (single_digits && last && has(digit, end)) last = false;
            set(start, i, first || last);
        }
    }

public:
    explicit Chunk(bool single_digits) : single_digits(single_digits), number(single_digits ? DIGIT : NUMBER) {}

    // Writes the places where words begin, in order, the first being 0; returns how many. If the text goes on behind
    // the chunk, those near its end may be wrong (see SIGHT). `starts` needs room for CHUNK + PAD + 16.
    size_t cut(const char* base, size_t length, uint32_t* starts) {
        return HASWELL ? cut_haswell(base, length, starts) : cut_any(base, length, starts);
    }

private:
    TARGET_HASWELL size_t cut_haswell(const char* base, size_t length, uint32_t* starts) {
        return cut_any(base, length, starts);
    }

    INLINED size_t cut_any(const char* base, size_t length, uint32_t* starts) {
        size_t blocks = (length + 63) / 64;
        wide_spaces.clear();
        for (size_t b = 0; b <= blocks; b++) letter[b] = digit[b] = space[b] = first_byte[b] = 0;
        for (size_t b = 0; b < blocks; b++) {
            Masks m = classify(base + 64 * b);
            letter[b] |= m.letter;
            digit[b] |= m.digit;
            first_byte[b] |= m.digit;  // of digits
            space[b] |= m.space;
            blank[b] = m.blank;
            quote[b] = m.quote;
            if (m.high) classify_high(base, length, b, m.high);
        }
        uint64_t l = 0, d = 0, o = 0, s = 0, k = 0;  // the last bit of the block before, at bit 0
        for (size_t b = 0; b < blocks; b++) {
            uint64_t L = letter[b], D = digit[b], S = space[b], O = ~(L | D | S);
            uint64_t inside = length - 64 * b >= 64 ? ~uint64_t(0) : ~(~uint64_t(0) << (length - 64 * b));
            uint64_t ends = single_digits ? ~uint64_t(0) : 0, next = space[b + 1] | (digit[b + 1] & ends);
            uint64_t solid_next = ~(S | (D & ends)) & inside;  // white space leaves its last to what is solid
            solid_next = solid_next >> 1 | (64 * (b + 1) < length ? ~next << 63 : 0);
            uint64_t runs = (L & ~(L << 1 | l)) | (D & ~(D << 1 | d) & ~ends) | (O & ~(O << 1 | o));
            start[b] =
                ((runs & ~(blank[b] << 1 | k)) | (first_byte[b] & ends) | (S & (~(S << 1 | s) | solid_next))) & inside;
            l = L >> 63, d = D >> 63, o = O >> 63, s = S >> 63, k = blank[b] >> 63;
        }
        start[0] |= 1;
        if (!wide_spaces.empty()) fix_wide_spaces(base, length);
        for (size_t b = 0; b < blocks; b++)
            if (uint64_t quotes = quote[b] & start[b]) split_contractions(base, length, b, quotes);
        return places(blocks, starts);
    }

    // The set bits as numbers, eight at a time: the count of a block is hard to predict, its eighth part is not.
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

// Cuts a whole text: `use(base, starts, n)` is called with words base[starts[i]] .. base[starts[i + 1]], i < n.
// At least PAD bytes after the last word may be read. Words longer than a chunk come alone.
class Cutter {
    Pattern pattern;
    Chunk chunk;
    std::vector<uint32_t> starts;
    std::vector<char> tail;  // the end of the text, with room behind it

    bool in_chunks() const { return pattern == Pattern::gpt2 || pattern == Pattern::smollm; }

    size_t cut(const char* base, size_t length) {
        if (in_chunks()) return chunk.cut(base, length, starts.data());
        const char *p = base, *end = base + length;
        size_t n = 0;
        for (; p < end; p = match(pattern, p, end)) starts[n++] = uint32_t(p - base);
        return n;
    }

    // How many starts are beyond doubt. A word that reaches the end of what was seen may be longer or two words.
    size_t certain(size_t n, size_t length) const {
        while (n && starts[n - 1] + SIGHT > length) n--;
        if (!in_chunks()) n -= n > 0;  // newlines and marks may still join the last word
        return n;
    }

public:
    explicit Cutter(Pattern pattern)
        : pattern(pattern), chunk(pattern == Pattern::smollm), starts(CHUNK + PAD + 80), tail(CHUNK + 3 * PAD) {}

    template <class F>
    void operator()(const char* text, size_t length, F use) {
        const char *p = text, *end = text + length;
        while (p < end) {
            size_t left = end - p;
            if (left <= CHUNK + PAD) {
                memcpy(tail.data(), p, left);
                memset(tail.data() + left, 0, PAD);
                size_t n = cut(tail.data(), left);
                starts[n] = uint32_t(left);
                use(tail.data(), starts.data(), n);
                return;
            }
            size_t n = certain(cut(p, CHUNK), CHUNK);
            if (n > 1) {
                use(p, starts.data(), n - 1);
                p += starts[n - 1];
            } else {  // one endless word: find its end the slow way
                const char* next = match(pattern, p, end);
                use_long(p, next, use);
                p = next;
            }
        }
    }

private:
    template <class F>
    void use_long(const char* p, const char* next, F use) {
        if (size_t(next - p) > UINT32_MAX) throw std::length_error("a word must be shorter than 4 GiB");
        uint32_t ends[2] = {0, uint32_t(next - p)};
        if (ends[1] > CHUNK / 2) return use(p, ends, 1);  // such a word is never read past its end
        memcpy(tail.data(), p, ends[1]);
        memset(tail.data() + ends[1], 0, PAD);
        use(tail.data(), ends, 1);
    }
};
}  // namespace minillm::text
