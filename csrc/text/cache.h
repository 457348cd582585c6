// word -> ids of the words seen so far. Most words have been seen before, so encoding is mostly looking up here.
//
// An entry is 32 bytes with the ids inside it, and a pair of entries is one cache line: `guess` looks at that line
// alone, `find` a little further. Words of more than 15 bytes are rare and have a table of their own. All of it is
// bounded. A table is at most half full: a fuller one saves memory, but to look further costs more than a larger
// table.
#pragma once

#include <cstdint>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "text/pool.h"
#include "text/word.h"

namespace minillm::text {
template <class T>
struct Entry {
    static constexpr uint32_t INSIDE = 12 / sizeof(T);    // ids kept in the entry itself: 6 or 3
    Key key;
    union {
        T ids[INSIDE];
        uint32_t place;                       // of more ids, in the arena
    };
    uint32_t count;
};
static_assert(sizeof(Entry<uint16_t>) == 32 && sizeof(Entry<uint32_t>) == 32, "two entries a cache line");

struct LongEntry {
    uint64_t hash;
    uint32_t place, length, count;                                         // arena: the word's bytes, then its ids
};

constexpr size_t FEWEST_ENTRIES = 1 << 14, MOST_ENTRIES = 1 << 20;         // 0.5 and 32 MB
constexpr size_t LONG_ENTRIES = 1 << 15, LONGEST_CACHED = 256;
constexpr size_t MOST_ARENA = 1 << 21;                                     // ids: 4 or 8 MB
constexpr size_t NEAR = 8;  // entries between a word and its own place

template <class T>
class Cache {
    Zeros<Entry<T>> table;
    size_t used = 0;
    Zeros<LongEntry> long_table{LONG_ENTRIES};
    std::vector<T> arena;

    static size_t cells(size_t bytes) { return (bytes + sizeof(T) - 1) / sizeof(T); }

    static size_t size_for(size_t words) {
        size_t size = FEWEST_ENTRIES;
        while (size < 4 * words && size < MOST_ENTRIES) size *= 2;
        return size;
    }

    Entry<T>* pair_of(uint64_t hash) const { return table.data + (hash & (table.size - 2)); }
    Entry<T>* near(uint64_t hash, size_t step) const {
        return table.data + (((hash & ~uint64_t(1)) + step) & (table.size - 1));
    }

    // A free entry near the word's own place. A full neighbourhood in a table of full size loses an entry: what is
    // common comes back at once, and nobody can make the table slow by choosing words that collide.
    Entry<T>* room(const Key& key) {
        uint64_t hash = hash_of(key);
        for (size_t step = 0; step < NEAR; step++) {
            Entry<T>* e = near(hash, step);
            if (!e->key) {
                used++;
                return e;
            }
        }
        return near(hash, hash >> 61);
    }

    void grow() {
        Zeros<Entry<T>> old(2 * table.size);
        old.swap(table);
        used = 0;
        for (size_t i = 0; i < old.size; i++)
            if (old.data[i].key) *room(old.data[i].key) = old.data[i];
    }

public:
    // A cache that can take `words` words before it has to grow.
    explicit Cache(size_t words) : table(size_for(words)) {}

    void prefetch(uint64_t hash) const { __builtin_prefetch(pair_of(hash)); }

    struct Guess {
        const Entry<T>* entry;
        bool right;
    };

    // The likely place of a word's entry, and whether it is there.
    Guess guess(const Key& key, uint64_t hash) const {
        const Entry<T>* e = pair_of(hash);
#ifdef __SSE2__
        auto load = [](const Key& k) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(&k)); };
        auto same = [&](int i) { return _mm_movemask_epi8(_mm_cmpeq_epi8(load(key), load(e[i].key))) == 0xFFFF; };
        bool first = same(0), second = same(1);
#else
        bool first = e[0].key == key, second = e[1].key == key;
#endif
        return {e + second, bool(first | second)};
    }

    // The word's entry or null. One that lies further off changes places with one where `guess` looks, if that may lie
    // there, so common words come to be found at once.
    const Entry<T>* find(const Key& key, uint64_t hash) {
        for (size_t step = 0; step < NEAR; step++) {
            Entry<T>* e = near(hash, step);
            if (!e->key) return nullptr;
            if (!(e->key == key)) continue;
            Entry<T>* better = near(hash, step & 1);
            uint64_t home = hash_of(better->key) & ~uint64_t(1) & (table.size - 1);
            if (step < 2 || ((e - table.data - home) & (table.size - 1)) >= NEAR) return e;
            std::swap(*e, *better);
            return better;
        }
        return nullptr;
    }

    const T* ids(const Entry<T>& e) const { return e.count <= e.INSIDE ? e.ids : arena.data() + e.place; }

    void insert(const Key& key, const uint32_t* ids, size_t count) {
        if (used > table.size / 2 && table.size < MOST_ENTRIES) grow();
        if (arena.size() > MOST_ARENA) clear();
        Entry<T> e{};
        e.key = key, e.count = uint32_t(count);
        if (count <= e.INSIDE) {
            std::copy(ids, ids + count, e.ids);
        } else {
            e.place = uint32_t(arena.size());
            arena.insert(arena.end(), ids, ids + count);
        }
        *room(key) = e;
    }

    // A word of more than 15 bytes: its ids and their number, or null.
    const T* find_long(const char* word, size_t length, uint64_t hash, size_t* count) const {
        for (size_t step = 0; step < NEAR; step++) {
            const LongEntry& e = long_table.data[(hash + step) & (LONG_ENTRIES - 1)];
            if (e.hash != hash || e.length != length || memcmp(&arena[e.place], word, length)) continue;
            *count = e.count;
            return &arena[e.place + cells(length)];
        }
        return nullptr;
    }

    void insert_long(const char* word, size_t length, uint64_t hash, const uint32_t* ids, size_t count) {
        if (arena.size() > MOST_ARENA) clear();
        size_t place = arena.size();
        arena.resize(place + cells(length));
        memcpy(&arena[place], word, length);
        arena.insert(arena.end(), ids, ids + count);
        size_t step = 0;
        while (step < NEAR - 1 && long_table.data[(hash + step) & (LONG_ENTRIES - 1)].length) step++;
        LongEntry& e = long_table.data[(hash + step) & (LONG_ENTRIES - 1)];
        e = {hash, uint32_t(place), uint32_t(length), uint32_t(count)};
    }

    void clear() {
        table.clear(), long_table.clear(), arena.clear();
        used = 0;
    }

    size_t bytes() const {
        return table.size * sizeof(Entry<T>) + long_table.size * sizeof(LongEntry) + arena.capacity() * sizeof(T);
    }
};
}  // namespace minillm::text
