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
#include "text/pretokenize.h"

namespace minillm::text {
constexpr size_t BATCH = 256;                 // words whose cache lines are fetched ahead

// For an Encoder: cuts by a pattern and merges bytes.
struct ByteWords {
    Merges merges;
    Pattern pattern;
    WholeWords whole;
    Cutter cutter() const { return Cutter(pattern); }
    Merger merger() const { return Merger(merges, &whole); }
    bool takes(const std::string&) const { return true; }
};

// All that one thread needs to encode.
template <class T, class Words>
class State {
    decltype(std::declval<Words>().cutter()) cutter;
    decltype(std::declval<Words>().merger()) merger;
    std::vector<uint32_t> merged;

    size_t merge(const char* word, size_t length) {
        if (merged.size() < length) merged.resize(length);
        return merger(word, length, merged.data());
    }

    // Writes the ids of a word that was not where it was expected to `out`; returns the end of what it wrote.
    T* look_further(const char* word, size_t length, const Key& key, uint64_t hash, T* out) {
        size_t count;
        if (key) {
            if (const Entry<T>* e = cache.find(key, hash)) return std::copy_n(cache.ids(*e), e->count, out);
            count = merge(word, length);
            cache.insert(key, merged.data(), count);
        } else {
            hash = hash_of(word, length);
            if (const T* found = cache.find_long(word, length, hash, &count)) return std::copy_n(found, count, out);
            count = merge(word, length);
            if (length <= LONGEST_CACHED) cache.insert_long(word, length, hash, merged.data(), count);
        }
        return std::copy_n(merged.data(), count, out);
    }

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
            const Entry<T>* e = cache.guess(keys[i], hashes[i]);
            if (e->key == keys[i] && e->count - 1 < e->INSIDE) {
                memcpy(out, e->ids, sizeof e->ids);
                out += e->count;
            } else {
                out = look_further(base + starts[i], starts[i + 1] - starts[i], keys[i], hashes[i], out);
            }
        }
        return out;
    }

public:
    Cache<T> cache;

    State(const Words& words, size_t n) : cutter(words.cutter()), merger(words.merger()), cache(n) {}

    void encode(const char* text, size_t length, Sink<T>& sink) {
        cutter(text, length, [&](const char* base, const uint32_t* starts, size_t n) {
            if (n == 1) return encode_one(base, starts[1], sink);
            T* out = sink.room(starts[n] + Entry<T>::INSIDE);     // an id a byte at most, and what memcpy overshoots
            T* begin = out;
            for (size_t i = 0; i < n; i += BATCH) out = encode_words(base, starts + i, std::min(BATCH, n - i), out);
            sink.count += out - begin;
        });
    }

    // One word, cut by whoever calls; nothing behind it is read.
    void encode_one(const char* word, size_t length, Sink<T>& sink) {
        char padded[SHORT_WORD + 1] = {};
        if (length <= SHORT_WORD) memcpy(padded, word, length);
        if (!length) return;
        Key key = key_of(padded, length);
        T* out = sink.room(length);
        sink.count += look_further(word, length, key, hash_of(key), out) - out;
    }
};
}  // namespace minillm::text
