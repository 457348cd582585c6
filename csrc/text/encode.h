// Byte-level BPE encoding. The readable version, with the definition: minillm/tokenizer/bpe.py and merge.py.
//
// A text is cut into words (pretokenize.h), and each word is looked up in a cache (cache.h); one that is not there
// is merged (merge.h). The cache lines of the next words are fetched while this one is looked up. Ids go to a buffer
// that becomes the NumPy array (pool.h).
//
// T is the type of an id: uint16_t where all ids fit, else uint32_t. The narrow one halves what is written, and twice
// as many ids fit into a cache entry.
//
// Everything a thread writes to is in its own State, so threads share only the vocabulary, which never changes.
#pragma once

#include <string>
#include <utility>

#include "text/cache.h"
#include "text/merge.h"
#include "text/pieces.h"
#include "text/pretokenize.h"

namespace minillm::text {
constexpr size_t BATCH = 256;                 // words whose cache lines are fetched ahead
constexpr uint64_t PIECE_TAG = uint64_t(1) << 63;     // in the keys of pieces

// For an Encoder: cuts by a pattern and merges bytes.
struct ByteWords {
    Merges merges;
    Pattern pattern;
    WholeWords whole;
    Joins joins;
    Cutter cutter() const { return Cutter(pattern); }
    Merger merger() const { return Merger(merges, &whole); }
    bool takes(const std::string&) const { return true; }
};

// Whether a word is of a script without spaces, by the character in its middle: Chinese, Japanese, Korean, Yi; or of emoji.
// Such words are long and seldom come again, so they are cut into pieces instead of being remembered.
inline bool is_wide(const char* word, size_t length) {
    size_t i = length / 2;
    while (i && continues(word[i])) i--;
    return length > 2 * 3 && uint8_t(word[i]) >= WIDE;
}

// All that one thread needs to encode.
template <class T, class Words>
class State {
    // What is looked up next: a word, or a piece of one. kind: WORD, PIECE, or the place in `singles` of a piece that is one
    // character.
    struct Unit {
        const char* at;
        uint32_t length, kind;
    };
    static constexpr uint32_t WORD = 0, PIECE = 1;

    const Words& words;
    decltype(std::declval<Words>().cutter()) cutter;
    decltype(std::declval<Words>().merger()) merger;
    static constexpr bool IN_PIECES = !std::is_same_v<decltype(Words::joins), NoPieces>;
    Zeros<Single<T>> singles{IN_PIECES ? PLANE + EMOJIS : 1};
    static constexpr size_t OVERSHOOT = (sizeof(Entry<T>) - sizeof(Key)) / sizeof(T);  // of ids that are copied at once
    std::vector<uint32_t> merged;
    std::vector<Unit> units{BATCH + 1};
    std::vector<Key> keys = std::vector<Key>(BATCH);
    std::vector<uint64_t> hashes = std::vector<uint64_t>(BATCH);
    size_t waiting = 0;  // units that are to be looked up

    template <bool PIECE>
    size_t merge(const char* word, size_t length) {
        if (merged.size() < length) merged.resize(length);
        return merger(word, length, merged.data(), PIECE);
    }

    // Writes the ids of a word that was not where it was expected to `out`; returns the end of what it wrote. A piece is
    // remembered apart: what a word is as a whole does not count for it.
    template <bool PIECE>
    T* look_further(const char* word, size_t length, const Key& key, uint64_t hash, T* out) {
        size_t count;
        if (key) {
            if (const Entry<T>* e = cache.find(key, hash)) return std::copy_n(cache.ids(*e), e->count, out);
        } else {
            hash = hash_of(word, length) ^ PIECE;
            if (const T* found = cache.find_long(word, length, hash, &count)) return std::copy_n(found, count, out);
        }
        count = merge<PIECE>(word, length);
        if (key) cache.insert(key, merged.data(), count);
        else if (length <= LONGEST_CACHED) cache.insert_long(word, length, hash, merged.data(), count);
        return std::copy_n(merged.data(), count, out);
    }

    // ---- words without wide characters

    // The ids of words base[starts[0]] .. base[starts[n]], n <= BATCH, to `out`.
    T* encode_words(const char* base, const uint32_t* starts, size_t n, T* out) {
        Key keys[BATCH];
        uint64_t hashes[BATCH];
        for (size_t i = 0; i < n; i++) {
            keys[i] = key_of(base + starts[i], starts[i + 1] - starts[i]);
            hashes[i] = hash_of(keys[i]);
            cache.prefetch(hashes[i]);
        }
        for (size_t i = 0; i < n; i++) {
            auto [e, right] = cache.guess(keys[i], hashes[i]);
            if (right && e->count - 1 < e->INSIDE) {
                memcpy(out, e->ids, sizeof(Entry<T>) - sizeof(Key));
                out += e->count;
            } else {
                out = look_further<false>(base + starts[i], starts[i + 1] - starts[i], keys[i], hashes[i], out);
            }
        }
        return out;
    }

    // ---- and with them

    // Cuts words into pieces where they are wide, and looks up what was cut; nothing from `end` on is read.
    T* encode_wide(const char* base, const uint32_t* starts, size_t n, const char* end, T* out) {
        for (size_t i = 0; i < n; i++) {
            const char* word = base + starts[i];
            size_t length = starts[i + 1] - starts[i];
            if (is_cut(word, length)) out = cut_pieces(word, length, end, out);
            else out = add({word, uint32_t(length), WORD}, end, out);
        }
        return look_up(end, out);
    }

    bool is_cut(const char* word, size_t length) {
        if constexpr (IN_PIECES) return is_wide(word, length) && !merger.is_whole(word, length);
        return false;
    }

    T* add(Unit unit, const char* end, T* out) {
        units[waiting++] = unit;
        return waiting == BATCH ? look_up(end, out) : out;
    }

    // Without a branch for each place where a piece may end: nobody can predict it.
    T* cut_pieces(const char* word, size_t length, const char* end, T* out) {
        auto p = reinterpret_cast<const uint8_t*>(word), last = p + length, from = p;
        auto unit = [&](const uint8_t* to, uint32_t c) -> Unit {
            return {reinterpret_cast<const char*>(from), uint32_t(to - from), single_place(to - from, c)};
        };
        uint32_t before = next_character(p);
        while (p < last) {
            const uint8_t* here = p;
            uint32_t c = next_character(p);
            bool cut = words.joins.cut(before, c);
            units[waiting] = unit(here, before);
            waiting += cut, from = cut ? here : from, before = c;
            if (waiting == BATCH) out = look_up(end, out);
        }
        return add(unit(last, before), end, out);
    }

    // Of a piece by its length and last character.
    static uint32_t single_place(size_t length, uint32_t c) {
        bool plane = length == 3 && c >= 0x800, emoji = length == 4 && c >= EMOJI && c < EMOJI + EMOJIS;
        return plane ? c : emoji ? PLANE + c - EMOJI : PIECE;
    }

    T* look_up(const char* end, T* out) {
        for (size_t i = 0; i < waiting; i++) {
            const Unit& unit = units[i];
            if (unit.kind > PIECE) {
                __builtin_prefetch(&singles.data[unit.kind]);
                continue;
            }
            char padded[SHORT_WORD + 1] = {};
            bool near = end - unit.at <= ptrdiff_t(SHORT_WORD);
            if (near) memcpy(padded, unit.at, std::min<size_t>(unit.length, SHORT_WORD));
            keys[i] = key_of(near ? padded : unit.at, unit.length);
            if (keys[i] && unit.kind == PIECE) keys[i].high |= PIECE_TAG;
            hashes[i] = hash_of(keys[i]);
            cache.prefetch(hashes[i]);
        }
        for (size_t i = 0; i < waiting; i++)
            out = units[i].kind > PIECE ? put_single(units[i], out) : put(units[i], keys[i], hashes[i], out);
        waiting = 0;
        return out;
    }

    T* put_single(const Unit& unit, T* out) {
        Single<T>& single = singles.data[unit.kind];
        if (!single.count) {
            single.count = T(merge<true>(unit.at, unit.length));
            std::copy_n(merged.data(), std::min<size_t>(single.count, std::size(single.ids)), single.ids);
        }
        if (single.count > std::size(single.ids)) {
            char padded[SHORT_WORD + 1] = {};
            Key key = key_of(static_cast<const char*>(memcpy(padded, unit.at, unit.length)), unit.length);
            key.high |= PIECE_TAG;
            return look_further<true>(unit.at, unit.length, key, hash_of(key), out);
        }
        memcpy(out, single.ids, sizeof single.ids);
        return out + single.count;
    }

    T* put(const Unit& unit, const Key& key, uint64_t hash, T* out) {
        auto [e, right] = cache.guess(key, hash);
        if (right && e->count - 1 < e->INSIDE) {
            memcpy(out, e->ids, sizeof(Entry<T>) - sizeof(Key));
            return out + e->count;
        }
        return unit.kind == PIECE ? look_further<true>(unit.at, unit.length, key, hash, out)
                                  : look_further<false>(unit.at, unit.length, key, hash, out);
    }

public:
    Cache<T> cache;

    State(const Words& words, size_t n) : words(words), cutter(words.cutter()), merger(words.merger()), cache(n) {}

    void encode(const char* text, size_t length, Sink<T>& sink) {
        cutter(text, length, [&](const char* base, const uint32_t* starts, size_t n) {
            if (n == 1) return encode_one(base, starts[1], sink);
            T* out = sink.room(starts[n] + OVERSHOOT);
            T* begin = out;
            for (size_t i = 0; i < n; i += BATCH) {
                size_t count = std::min(BATCH, n - i);
                bool wide = IN_PIECES && any_from(WIDE, base + starts[i], starts[i + count] - starts[i]);
                out = wide ? encode_wide(base, starts + i, count, base + starts[n] + PAD, out)
                           : encode_words(base, starts + i, count, out);
            }
            sink.count += out - begin;
        });
    }

    // One word, cut by whoever calls; nothing behind it is read.
    void encode_one(const char* word, size_t length, Sink<T>& sink) {
        if (!length) return;
        const uint32_t starts[2] = {0, uint32_t(length)};
        T* out = sink.room(length + OVERSHOOT);
        sink.count += encode_wide(word, starts, 1, word + length, out) - out;
    }

    // Puts a token of at most SHORT_WORD bytes, which need be no UTF-8, into the cache.
    void remember(const char* token, size_t length) {
        char padded[SHORT_WORD + 1] = {};
        memcpy(padded, token, length);
        size_t count = merge<false>(token, length);
        cache.insert(key_of(padded, length), merged.data(), count);
    }

    size_t bytes() const { return cache.bytes() + singles.size * sizeof(Single<T>); }
};
}  // namespace minillm::text
