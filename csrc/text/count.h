// Counting the distinct words of a corpus. Each thread has a table of its own; they are added up in the end.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "text/pool.h"
#include "text/word.h"

namespace minillm::text {
constexpr size_t COUNTED_TOGETHER = 256;      // words whose places in the table are fetched ahead

struct Count {
    Key key;
    uint64_t count;
};

class WordCounts {
    Zeros<Count> table{1 << 15};
    size_t used = 0;
    std::unordered_map<std::string, uint64_t> long_words;

    Count* slot(const Key& key, uint64_t hash) {
        for (size_t i = hash;; i++) {
            Count* c = table.data + (i & (table.size - 1));
            if (!c->key || c->key == key) return c;
        }
    }

    void grow() {
        Zeros<Count> old(2 * table.size);
        old.swap(table);
        for (size_t i = 0; i < old.size; i++)
            if (old.data[i].key) *slot(old.data[i].key, hash_of(old.data[i].key)) = old.data[i];
    }

    void add(const Key& key, uint64_t hash, uint64_t count) {
        Count* c = slot(key, hash);
        if (!c->key) {
            if (2 * used > table.size) {
                grow();
                c = slot(key, hash);
            }
            c->key = key;
            used++;
        }
        c->count += count;
    }

public:
    // The words base[starts[0]] .. base[starts[n]]; reads 16 bytes behind short ones.
    void add_words(const char* base, const uint32_t* starts, size_t n) {
        Key keys[COUNTED_TOGETHER];
        uint64_t hashes[COUNTED_TOGETHER];
        for (size_t i = 0; i < n; i++) {
            size_t length = starts[i + 1] - starts[i];
            keys[i] = key_of(base + starts[i], length);
            hashes[i] = hash_of(keys[i]);
            __builtin_prefetch(table.data + (hashes[i] & (table.size - 1)));
        }
        for (size_t i = 0; i < n; i++) {
            if (keys[i]) add(keys[i], hashes[i], 1);
            else long_words[std::string(base + starts[i], starts[i + 1] - starts[i])]++;
        }
    }

    void add_word(const std::string& word, uint64_t count) {
        if (word.size() > SHORT_WORD) {
            long_words[word] += count;
        } else if (!word.empty()) {
            char padded[SHORT_WORD + 1] = {};
            memcpy(padded, word.data(), word.size());
            Key key = key_of(padded, word.size());
            add(key, hash_of(key), count);
        }
    }

    void merge(WordCounts& other) {
        other.each([&](const char* word, size_t n, uint64_t count) { add_word(std::string(word, n), count); });
    }

    template <class F>
    void each(F use) const {
        for (size_t i = 0; i < table.size; i++) {
            const Key& key = table.data[i].key;
            if (!key) continue;
            char bytes[16];
            for (int b = 0; b < 8; b++) {
                bytes[b] = char(key.low >> (8 * b) & 255);
                bytes[8 + b] = char(key.high >> (8 * b) & 255);
            }
            use(bytes, key.high >> 56, table.data[i].count);
        }
        for (auto& [word, count] : long_words) use(word.data(), word.size(), count);
    }

    size_t size() const { return used + long_words.size(); }
};
}  // namespace minillm::text
