// Cutting UTF-8 text into words, as the patterns of minillm/tokenizer/pretokenize.py do.
//
//   patterns.h   all patterns, one word at a time.
//   Chunk          gpt2 and smollm, 64 bytes at a time without a branch per word. Classes of bytes become bit masks (masks.h),
//                  and a few shifts and ANDs say where words begin (the idea of Langdale and Lemire's simdjson). 3x faster.
//   RunChunk       the same for all others (runs.h).
//   Cutter         a whole text, chunk by chunk.
//
// No pattern looks behind, so cutting may begin again at any place where a word begins. That is how a long text is
// taken chunk by chunk, and why a chunk's last word is left to the next chunk.
#pragma once

#include <stdexcept>

#include "text/masks.h"
#include "text/patterns.h"
#include "text/runs.h"

namespace minillm::text {
// Where words begin in up to CHUNK + PAD bytes at `base`, gpt2's pattern, or smollm's: the same between single digits.
class Chunk : ChunkMasks {
    const bool single_digits;
    const uint8_t number;
    uint64_t first_byte[WORDS];
    std::vector<uint32_t> wide_spaces;  // white space longer than a byte

    // Give every byte of the longer characters in a block its character's class.
    void classify_high(const char* base, size_t length, size_t block) {
        Leads m = classify_leads(base + 64 * block);
        add_three(letter, block, m.han | m.letter);
        each_of(base, length, block, m.lead & ~(m.han | m.letter), [&](size_t i, Char c) {
            if (is(c, LETTER)) add(letter, i, c.length);
            if (is(c, number)) add(digit, i, c.length), set(first_byte, i, true);
            if (is(c, SPACE)) add(space, i, c.length), wide_spaces.push_back(uint32_t(i));
        });
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
        classify_bytes(base, blocks);
        std::copy_n(digit, blocks + 1, first_byte);
        for (size_t b = 0; b < blocks; b++)
            if (high[b]) classify_high(base, length, b);
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
};

// Cuts a whole text: `use(base, starts, n)` is called with words base[starts[i]] .. base[starts[i + 1]], i < n.
// At least PAD bytes after the last word may be read. Words longer than a chunk come alone.
class Cutter {
    Pattern pattern;
    Chunk chunk;
    RunChunk runs;
    std::vector<uint32_t> starts;
    std::vector<char> tail;  // the end of the text, with room behind it

    bool like_gpt2() const { return pattern == Pattern::gpt2 || pattern == Pattern::smollm; }
    // at_end: whether the text ends behind these bytes.
    size_t cut(const char* base, size_t length, bool at_end) {
        if (like_gpt2()) return chunk.cut(base, length, starts.data());
        return runs.cut(base, length, at_end, starts.data());
    }

    // How many starts are beyond doubt. A word that reaches the end of what was seen may be longer or two words.
    size_t certain(size_t n, size_t length) const {
        while (n && starts[n - 1] + SIGHT > length) n--;
        if (!like_gpt2()) n -= n > 0;  // newlines and marks may still join the last word
        return n;
    }

public:
    explicit Cutter(Pattern pattern)
        : pattern(pattern),
          chunk(pattern == Pattern::smollm),
          runs(pattern),
          starts(CHUNK + PAD + 80),
          tail(CHUNK + 3 * PAD) {}

    template <class F>
    void operator()(const char* text, size_t length, F use) {
        const char *p = text, *end = text + length;
        while (p < end) {
            size_t left = end - p;
            if (left <= CHUNK + PAD) {
                memcpy(tail.data(), p, left);
                memset(tail.data() + left, 0, PAD);
                size_t n = cut(tail.data(), left, true);
                starts[n] = uint32_t(left);
                use(tail.data(), starts.data(), n);
                return;
            }
            size_t n = certain(cut(p, CHUNK, false), CHUNK);
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
