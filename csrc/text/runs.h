// Where words begin, 64 bytes at a time, by all patterns but gpt2's kind; the definitions are match_cl100k_like,
// match_o200k and match_deepseek (patterns.h). In terms of runs of characters of one class:
//
//   letters     a word, with a character before them that is white space but no newline, or a run of others by itself
//               and not behind a blank (deepseek: if both are ASCII); o200k: one more at each capital behind a small one
//   digits      a word for each three of them from where the run begins (or each one)
//   Chinese     deepseek: a run of Chinese or kana is a word; before it, and before digits, white space is one word
//   others      a word, with a blank before them and the newlines behind them
//   white space what those newlines leave: a word up to the last newline, and one of the rest, which leaves its last
//               character to what follows
//   'll and such, where the apostrophe begins a word: a word (o200k: where it follows letters, it belongs to them)
//
// Odd characters, of which that is not all there is to say, are taken for others at first: digits longer than a byte,
// marks in o200k, ... Around each the pattern itself then cuts, from the last word before it that cannot depend on it, until
// a word begins where one was thought to begin: from there on the same words follow, for no pattern looks behind.
#pragma once

#include <vector>

#include "text/masks.h"
#include "text/patterns.h"

namespace minillm::text {
class RunChunk : ChunkMasks {
    struct Wide { uint32_t at, end; };
    const Pattern pattern;
    const bool single_digits, one_at_end;  // white space that ends the text is one word
    const bool by_case, by_script;  // o200k, deepseek
    const uint8_t letters;
    uint64_t caseless[WORDS], han[WORDS], odd[WORDS], tail[WORDS];  // tail: newlines of the others before them
    std::vector<Wide> wide_spaces, wide_others;  // longer than a byte

    // Of the block before: the last bits, at bit 0; all its digits; and the starts among its last three bytes.
    struct Last {
        uint64_t letter = 0, digit = 0, other = 0, space = 0, tail = 0, newline = 0, digits = 0, lower = 0,
                 caseless = 0, han = 0;
    };

    static uint64_t behind(uint64_t mask, uint64_t last) { return mask << 1 | last; }

    bool is_odd(Char c) const {
        return is(c, NUMBER) || (by_case && is(c, UPPER | LOWER)) || (by_script && (is(c, HAN) || !is(c, SIGN)));
    }

    void add_wide(size_t i, Char c) {
        if (is(c, letters)) {
            if (by_script && is(c, HAN)) return add(han, i, c.length);
            if (by_case && !is(c, LOWER)) add(upper, i, c.length);
            if (by_case && (c.kind & (UPPER | LOWER)) == (UPPER | LOWER)) add(caseless, i, c.length);
            return add(letter, i, c.length);
        }
        Wide wide{uint32_t(i), uint32_t(i + c.length)};
        if (is(c, SPACE)) return add(space, i, c.length), wide_spaces.push_back(wide);
        wide_others.push_back(wide);
        if (is_odd(c)) set(odd, i, true);
    }

    // Gives the longer characters of a block their classes.
    void classify_high(const char* base, size_t length, size_t block) {
        Leads m = classify_leads(base + 64 * block);
        uint64_t sure = by_script ? m.han : m.han | m.letter;
        add_three(by_script ? han : letter, block, sure);
        if (by_case) add_three(caseless, block, sure);
        each_of(base, length, block, m.lead & ~sure, [&](size_t i, Char c) { add_wide(i, c); });
    }

    void classify_all(const char* base, size_t length, size_t blocks) {
        classify_bytes(base, blocks);
        wide_spaces.clear(), wide_others.clear();
        for (size_t b = 0; b <= blocks; b++) caseless[b] = han[b] = odd[b] = 0;
        for (size_t b = 0; b < blocks; b++) {
            if (by_script) odd[b] |= (in_range(base + 64 * b, 0, 32) & ~space[b]) | in_range(base + 64 * b, 127, 1);
            if (high[b]) classify_high(base, length, b);
        }
    }

    static uint64_t inside(size_t length, size_t block) {
        return length - 64 * block >= 64 ? ~uint64_t(0) : ~(~uint64_t(0) << (length - 64 * block));
    }

    // Every third digit of a run from its first on.
    static uint64_t thirds(uint64_t D, uint64_t first, Last& last) {
        uint64_t one = behind(D, last.digit >> 63), two = D << 2 | last.digit >> 62, three = D << 3 | last.digit >> 61;
        uint64_t whole = D & one & two & three, found = first, next = (first << 3 | last.digits) & whole;
        for (; next & ~found; next = (found << 3 | last.digits) & whole) found |= next;
        last.digits = found >> 61;
        return found;
    }

    // White space leaves its last character to what is solid: no white space, nor what is cut out beforehand.
    uint64_t solid(size_t block) const { return ~(space[block] | (by_script ? digit[block] | han[block] : 0)); }

    INLINED void find_starts(size_t length, size_t blocks) {
        Last last;
        for (size_t b = 0; b < blocks; b++) {
            uint64_t in = inside(length, b), L = letter[b] & in, D = digit[b] & in, S = space[b] & in,
                     N = newline[b] & in, H = han[b] & in, lower = L & ~upper[b];
            uint64_t O = ~(L | D | S | H) & in, K = S & ~N;
            // newlines behind others are theirs: from where such a run begins the sum carries a bit through it
            uint64_t begin = N & (behind(O, last.other) | last.tail), sum = N + begin, T = N & ~sum;
            uint64_t left = S & ~T, solid_next = (solid(b) & in) >> 1 | (b + 1 < blocks ? solid(b + 1) << 63 : 0);
            uint64_t first_letter = L & ~behind(L, last.letter), first_han = H & ~behind(H, last.han);
            uint64_t first_digit = D & ~behind(D, last.digit >> 63), first_other = O & ~behind(O, last.other);
            uint64_t spaces = (left & ~behind(left, last.space)) | (K & solid_next);
            uint64_t blanks_before = behind(blank[b] & in, b ? blank[b - 1] >> 63 : 0);
            uint64_t leads = behind(K, b ? (space[b - 1] & ~newline[b - 1]) >> 63 : 0);
            start[b] = (first_letter & ~leads) | (first_other & ~blanks_before) | spaces | first_han |
                       (single_digits ? D : thirds(D, first_digit, last)) | (K & behind(N, last.newline));
            tail[b] = T;
            if (by_case) {
                start[b] |= L & upper[b] & behind(lower, last.lower);
                odd[b] |= (slash[b] & behind(T, last.tail)) | (L & upper[b] & behind(caseless[b], last.caseless));
            }
            last.letter = L >> 63, last.other = O >> 63, last.space = left >> 63, last.tail = T >> 63;
            last.lower = lower >> 63, last.caseless = caseless[b] >> 63, last.han = H >> 63;
            last.digit = D, last.newline = N >> 63;
        }
        start[0] |= 1;
    }

    bool is_other_at(size_t i) const { return !has(letter, i) && !has(digit, i) && !has(space, i); }

    // A character by itself between what is no other and letters leads them, if no blank takes it.
    void lead(size_t i, size_t end, size_t length) {
        if (end >= length || !has(letter, end) || !has(start, i)) return;
        if (i == 0 || !is_other_at(i - 1)) set(start, end, false);
    }

    void lead_letters(size_t length, size_t blocks) {
        uint64_t last = 0;
        for (size_t b = 0; b < blocks; b++) {
            uint64_t O = ~(letter[b] | digit[b] | space[b] | han[b]) & inside(length, b);
            uint64_t alone = start[b] & O & ~behind(O, last) & (letter[b] >> 1 | letter[b + 1] << 63);
            if (by_script) alone &= ~(high[b] | high[b] >> 1 | (b + 1 < blocks ? high[b + 1] << 63 : 0));
            start[b] &= ~(alone << 1);
            if (alone >> 63 && 64 * (b + 1) < length) start[b + 1] &= ~uint64_t(1);
            last = O >> 63;
        }
        if (by_script) return;
        for (Wide wide : wide_others) lead(wide.at, wide.end, length);
    }

    // Deepseek: letters that a sign leads end where they are no longer ASCII.
    void end_signed_words(const char* base, size_t length, size_t blocks) {
        for (size_t b = 0; b < blocks; b++) {
            uint64_t ascii = letter[b] & ~high[b], last = b ? (letter[b - 1] & ~high[b - 1]) >> 63 : 0;
            for (uint64_t rest = letter[b] & high[b] & behind(ascii, last); rest; rest &= rest - 1) {
                size_t i = 64 * b + lowest_bit(rest), from = start_before(i);
                if (i < length && uint8_t(base[from]) < 0x80 && KINDS.kind[uint8_t(base[from])] & SIGN &&
                    has(letter, from + 1))
                    set(start, i, true);
            }
        }
    }

    // Blanks behind a newline begin a word (find_starts), but where another newline follows them they do not.
    void join_blank_lines(size_t length, size_t blocks) {
        uint64_t last = 0;
        for (size_t b = 0; b < blocks; b++) {
            uint64_t N = newline[b] & inside(length, b), K = space[b] & ~N;
            for (uint64_t rest = N & behind(K, last); rest; rest &= rest - 1) {
                size_t i = 64 * b + lowest_bit(rest);
                while (i && has(space, i - 1) && !has(newline, i - 1)) i--;
                if (i && has(newline, i - 1) && !has(tail, i - 1)) set(start, i, false);
            }
            last = K >> 63;
        }
    }

    // The rules take bytes for characters; put it right where white space is longer.
    void fix_wide_spaces(size_t length) {
        for (Wide wide : wide_spaces) {
            bool last = wide.end < length && solid(wide.end >> 6) >> (wide.end & 63) & 1;
            for (size_t j = wide.at + 1; j < wide.end; j++) set(start, j, false);
            if (last) set(start, wide.at, true);
        }
    }

    void split_contractions(const char* base, size_t length, size_t blocks) {
        for (size_t b = 0; b < blocks; b++)
            for (uint64_t quotes = quote[b] & start[b]; quotes; quotes &= quotes - 1) {
                size_t i = 64 * b + lowest_bit(quotes);
                if (i >= length || !has(start, i)) continue;
                if (int n = contraction(base + i, base + length, true); n && i + n < length) set(start, i + n, true);
            }
    }

    // O200k: they belong to the letters before them, unless these are such an ending themselves.
    void join_contractions(const char* base, size_t length, size_t blocks) {
        size_t last = 0;
        for (size_t b = 0; b < blocks; b++)
            for (uint64_t quotes = quote[b] & start[b]; quotes; quotes &= quotes - 1) {
                size_t i = 64 * b + lowest_bit(quotes);
                int n =
                    i && i < length && i != last && has(letter, i - 1) ? contraction(base + i, base + length, true) : 0;
                if (!n) continue;
                last = i + n;
                for (size_t j = i; j < last; j++) set(start, j, false);
                if (last < length && has(letter, last)) set(start, last, true);
            }
    }

    // White space that ends the text, as one word.
    void join_end(size_t length) {
        size_t i = length;
        while (i && has(space, i - 1)) i--;
        while (i < length && !has(start, i)) i++;  // newlines that belong to what is before them
        for (size_t j = i + 1; j < length; j++) set(start, j, false);
    }

    // The last word that begins at i or before.
    size_t start_before(size_t i) const {
        size_t b = i >> 6;
        uint64_t mask = start[b] << (63 - (i & 63)) >> (63 - (i & 63));
        while (!mask && b) mask = start[--b];
        return 64 * b + 63 - __builtin_clzll(mask);
    }

    void clear_starts(size_t from, size_t to) {
        for (; from < to && from & 63; from++) set(start, from, false);
        for (; from + 64 <= to; from += 64) start[from >> 6] = 0;
        for (; from < to; from++) set(start, from, false);
    }

    // The word before an odd character that cannot depend on it; `done` is one.
    size_t word_before(size_t at, size_t done) const {
        while (at > done && has(space, at - 1)) at--;
        if (at > done) at--;
        while (at > done && has(letter, at) && has(letter, at - 1)) at--;
        return start_before(at);
    }

    void match_odd(const char* base, size_t length, size_t blocks) {
        size_t done = 0;
        for (size_t b = 0; b < blocks; b++)
            for (uint64_t rest = odd[b]; rest && done < length; rest &= rest - 1) {
                size_t at = 64 * b + lowest_bit(rest);
                if (at < done || at >= length) continue;
                done = word_before(at, done);
                for (bool expected = false; done < length && !(done > at && expected);) {
                    size_t next = match(pattern, base + done, base + length) - base;
                    clear_starts(done + 1, next);
                    done = next;
                    if (done == length) break;
                    expected = has(start, done);
                    set(start, done, true);
                }
            }
    }

public:
    explicit RunChunk(Pattern pattern)
        : pattern(pattern),
          single_digits(pattern == Pattern::qwen2 || pattern == Pattern::qwen35),
          one_at_end(pattern == Pattern::cl100k),
          by_case(pattern == Pattern::o200k),
          by_script(pattern == Pattern::deepseek),
          letters(pattern == Pattern::qwen35 || by_script ? UPPER | LOWER : LETTER) {}

    // As Chunk::cut. at_end: whether the text ends behind it.
    size_t cut(const char* base, size_t length, bool at_end, uint32_t* starts) {
        return HASWELL ? cut_haswell(base, length, at_end, starts) : cut_any(base, length, at_end, starts);
    }

private:
    TARGET_HASWELL size_t cut_haswell(const char* base, size_t length, bool at_end, uint32_t* starts) {
        return cut_any(base, length, at_end, starts);
    }

    INLINED size_t cut_any(const char* base, size_t length, bool at_end, uint32_t* starts) {
        size_t blocks = (length + 63) / 64;
        classify_all(base, length, blocks);
        find_starts(length, blocks);
        join_blank_lines(length, blocks);
        fix_wide_spaces(length);
        lead_letters(length, blocks);
        if (by_script) end_signed_words(base, length, blocks);
        else if (by_case) join_contractions(base, length, blocks);
        else split_contractions(base, length, blocks);
        if (at_end && one_at_end) join_end(length);
        match_odd(base, length, blocks);
        return places(blocks, starts);
    }
};
}  // namespace minillm::text
