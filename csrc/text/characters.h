// BPE over characters, with bytes for those that the vocabulary lacks: the kind of SentencePiece, where a text is one
// word, or one a blank. The definition: minillm/tokenizer/sentencepiece.py.
//
// A word may be of any length, so it is cut further where that changes nothing: between two characters that stand side
// by side in no token that merging makes, no merge ever joins anything. What is left is mostly words again, and goes
// through the cache (encode.h); the rest of it is merged in linear time, however long (merge.h).
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "text/merge.h"
#include "text/parallel.h"
#include "text/pieces.h"

namespace minillm::text {

// A set of pairs of characters.
class PairSet {
    std::vector<uint64_t> slots;
    uint64_t mask = 0;

    static uint64_t pack(uint32_t c, uint32_t d) { return uint64_t(c) << 21 | d; }
    size_t slot(uint64_t pair) const {
        uint64_t i = (pair * 0x9E3779B97F4A7C15u) >> 20 & mask;
        while (slots[i] != pair && slots[i] != ~uint64_t(0)) i = (i + 1) & mask;
        return i;
    }

public:
    explicit PairSet(std::vector<std::pair<uint32_t, uint32_t>> pairs) {
        std::sort(pairs.begin(), pairs.end());
        pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
        size_t size = 16;
        while (size < 2 * pairs.size()) size *= 2;
        slots.assign(size, ~uint64_t(0));
        mask = size - 1;
        for (auto [c, d] : pairs) slots[slot(pack(c, d))] = pack(c, d);
    }
    bool contains(uint32_t c, uint32_t d) const { return slots[slot(pack(c, d))] == pack(c, d); }
};

constexpr uint32_t BLANK = 0x2581;                    // the blank of such vocabularies, "\u2581"

// What a vocabulary says about characters and bytes.
struct CharacterRules {
    std::unordered_map<uint32_t, uint32_t> ids;       // character -> id
    uint32_t byte_id[256];                            // of a character that has none; NONE where a byte has none
    uint32_t unknown = NONE;                          // the id of any other, or NONE: it vanishes
    bool fuse = false;                                // unknown ones in a row are one
    bool blanks = false;                              // a space is a BLANK
    bool split = false;                               // a word begins at each BLANK
};

class Characters {
    CharacterRules rules;
    PairSet joined;
    uint32_t ascii_id[128];
    bool ascii_cut[128][128];
    bool all_bytes;

    uint32_t fold(uint32_t c) const { return c == BLANK && rules.blanks ? ' ' : c; }
    bool is_blank(uint32_t c) const { return c == (rules.blanks ? ' ' : BLANK); }
    bool known(uint32_t c) const { return c < 128 ? ascii_id[c] != NONE : rules.ids.count(c) > 0; }

    // Unknown characters in a row belong together, and of those that vanish the neighbours come together.
    bool find_cut(uint32_t c, uint32_t d) const {
        if (rules.split && is_blank(d)) return true;
        if (joined.contains(c, d)) return false;
        return all_bytes || (rules.unknown == NONE ? known(c) && known(d) : known(c) || known(d));
    }

    static PairSet pairs_in(const Texts& texts, bool blanks) {
        std::vector<std::pair<uint32_t, uint32_t>> pairs;
        for (std::string_view text : texts) {
            auto p = reinterpret_cast<const uint8_t*>(text.data()), end = p + text.size();
            for (uint32_t last = NONE; p < end;) {
                uint32_t c = next_character(p);
                if (blanks && c == BLANK) c = ' ';
                if (last != NONE) pairs.push_back({last, c});
                last = c;
            }
        }
        return PairSet(std::move(pairs));
    }

public:
    Merges merges;

    // whole: the texts of all tokens that merges make.
    Characters(CharacterRules with, Merges merges, const Texts& whole)
        : rules(std::move(with)), joined(pairs_in(whole, rules.blanks)), merges(std::move(merges)) {
        if (rules.blanks) {
            rules.ids.erase(' ');
            if (auto found = rules.ids.find(BLANK); found != rules.ids.end()) rules.ids[' '] = found->second;
        }
        all_bytes = std::count(rules.byte_id, rules.byte_id + 256, NONE) == 0;
        for (uint32_t c = 0; c < 128; c++) {
            auto found = rules.ids.find(c);
            ascii_id[c] = found == rules.ids.end() ? NONE : found->second;
        }
        for (uint32_t c = 0; c < 128; c++)
            for (uint32_t d = 0; d < 128; d++) ascii_cut[c][d] = find_cut(c, d);
    }

    // Whether a word may end between c and d.
    bool cut(uint32_t c, uint32_t d) const {
        if ((c | d) < 128) return ascii_cut[c][d];
        return find_cut(fold(c), fold(d));
    }

    // Writes the ids of a word's characters before any merge, at most one a byte; returns how many.
    size_t first_ids(const char* word, size_t n, uint32_t* out) const {
        auto p = reinterpret_cast<const uint8_t*>(word), end = p + n;
        uint32_t *begin = out, pending = NONE;  // an unknown one, which is written when the next known one comes
        while (p < end) {
            const uint8_t* start = p;
            uint32_t c = fold(next_character(p)), id = NONE;
            if (c < 128) id = ascii_id[c];
            else if (auto found = rules.ids.find(c); found != rules.ids.end()) id = found->second;
            if (id != NONE) {
                if (pending != NONE) *out++ = pending;
                pending = NONE, *out++ = id;
            } else if (bytes(start, p, out)) {
                out += p - start;
            } else if (rules.unknown != NONE) {
                if (pending != NONE && !rules.fuse) *out++ = pending;
                pending = rules.unknown;
            }
        }
        if (pending != NONE) *out++ = pending;
        return out - begin;
    }

private:
    // Writes the ids of the bytes of a character, if all have one.
    bool bytes(const uint8_t* p, const uint8_t* end, uint32_t* out) const {
        for (const uint8_t* q = p; q < end; q++)
            if (rules.byte_id[*q] == NONE) return false;
        while (p < end) *out++ = rules.byte_id[*p++];
        return true;
    }
};

constexpr size_t MOST_WORDS = 4096, READ_AHEAD = 16;  // words at a time; bytes read from where one begins

// Cuts a text: `use(base, starts, n)` is called with words base[starts[i]] .. base[starts[i + 1]], i < n, of which
// READ_AHEAD bytes may be read, or with a single one of which they may not.
class CharacterCutter {
    const Characters& characters;
    std::vector<uint32_t> starts;
    char tail[2 * READ_AHEAD];

    // Words from p on; returns their end.
    const uint8_t* find(const uint8_t* p, const uint8_t* end, size_t* n) {
        const uint8_t* base = p;
        uint32_t last = next_character(p);
        for (*n = 0; p < end;) {
            const uint8_t* here = p;
            uint32_t c = next_character(p);
            if (characters.cut(last, c)) {
                starts[++*n] = uint32_t(here - base);
                if (*n == MOST_WORDS) return here;
            }
            last = c;
        }
        starts[++*n] = uint32_t(end - base);
        return end;
    }

public:
    explicit CharacterCutter(const Characters& characters) : characters(characters), starts(MOST_WORDS + 2) {}

    template <class F>
    void operator()(const char* text, size_t length, F use) {
        if (length > UINT32_MAX) throw std::length_error("a text must be shorter than 4 GiB");
        auto p = reinterpret_cast<const uint8_t*>(text), end = p + length;
        while (p < end) {
            auto base = reinterpret_cast<const char*>(p);
            size_t n, inside;
            p = find(p, end, &n);
            for (inside = n; inside && base + starts[inside - 1] + READ_AHEAD > text + length;) inside--;
            if (inside) use(base, starts.data(), inside);
            if (inside < n) use_tail(base + starts[inside], starts.data() + inside, n - inside, use);
        }
    }

private:
    // The last words of a text, of fewer than READ_AHEAD bytes together, with room behind them.
    template <class F>
    void use_tail(const char* base, uint32_t* from, size_t n, F use) {
        for (size_t i = n + 1; i--;) from[i] -= from[0];
        memcpy(tail, base, from[n]);
        memset(tail + from[n], 0, READ_AHEAD);
        use(tail, from, n);
    }
};

class CharacterMerger {
    const Characters& characters;
    Merger merger;

public:
    explicit CharacterMerger(const Characters& characters) : characters(characters), merger(characters.merges) {}

    // Writes the ids of a word of n bytes, at most n of them; returns how many.
    size_t operator()(const char* word, size_t n, uint32_t* out, bool) {
        return merger.merge(out, characters.first_ids(word, n, out),
                            [&](size_t i) { return characters.merges.rank(out[i], out[i + 1]); });
    }
};

// For an Encoder: cuts and merges by these.
struct CharacterWords {
    Characters characters;
    NoPieces joins;                                   // its words are pieces already
    CharacterCutter cutter() const { return CharacterCutter(characters); }
    CharacterMerger merger() const { return CharacterMerger(characters); }
    bool takes(const std::string& token) const { return token.size() > 1 || uint8_t(token[0]) < 0x80; }  // a text
};
}  // namespace minillm::text
