// Byte-level BPE encoding. The readable version, with the definition: minillm/tokenizer/bpe.py and merge.py.
//
// A text is cut into words (pretokenize.cpp), and most words have been seen before, so encoding is mostly looking up:
//
//   Cache    word -> ids. A word of at most 15 bytes is two integers, compared as such. One entry is 32 bytes with
//            the ids inside it, a pair of entries is one cache line, and the lines of the next words are fetched while
//            this one is looked up.
//   Merger   a word that is not there is merged: by the definition when it is short, by a heap when it is long.
//   Sink     where ids go: a buffer that becomes the NumPy array.
//
// T is the type of an id: uint16_t where all ids fit, else uint32_t. The narrow one halves what is written, and twice
// as many ids fit into a cache entry.
//
// Everything a thread writes to is in its own State, so threads share only the vocabulary, which never changes.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "pretokenize.cpp"

constexpr uint32_t NONE = UINT32_MAX;

inline uint64_t mix(uint64_t a, uint64_t b) {
    __uint128_t product = __uint128_t(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
}

// ---- words of at most 15 bytes as two integers

constexpr size_t SHORT_WORD = 15;

struct Key {
    uint64_t low, high;                       // the bytes, and the length in the topmost one; 0, 0 for none
    bool operator==(const Key& other) const { return low == other.low && high == other.high; }
    explicit operator bool() const { return high != 0; }
};

struct KeyMasks {
    Key mask[SHORT_WORD + 2];                 // the last: nothing is left of a longer word
    uint64_t tag[SHORT_WORD + 2];
    KeyMasks() : mask(), tag() {
        for (size_t n = 0; n <= SHORT_WORD; n++) {
            mask[n].low = n >= 8 ? ~uint64_t(0) : (uint64_t(1) << (8 * n)) - 1;
            mask[n].high = n <= 8 ? 0 : (uint64_t(1) << (8 * (n - 8))) - 1;
            tag[n] = uint64_t(n) << 56;
        }
    }
};
inline const KeyMasks KEY_MASKS;

// The key of a word, 0 for a long one; reads 16 bytes whatever its length.
inline Key key_of(const char* p, size_t length) {
    Key k;
    memcpy(&k.low, p, 8);
    memcpy(&k.high, p + 8, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    k.low = __builtin_bswap64(k.low), k.high = __builtin_bswap64(k.high);
#endif
    length = length <= SHORT_WORD ? length : SHORT_WORD + 1;
    const Key& mask = KEY_MASKS.mask[length];
    return {k.low & mask.low, (k.high & mask.high) | KEY_MASKS.tag[length]};
}

inline uint64_t hash_of(const Key& k) {
    return mix(k.low ^ 0x9E3779B97F4A7C15u, k.high ^ 0xD1B54A32D192ED03u);
}

inline uint64_t hash_of(const char* p, size_t length) {
    uint64_t h = length ^ 0x9E3779B97F4A7C15u, a;
    for (; length >= 8; p += 8, length -= 8) {
        memcpy(&a, p, 8);
        h = mix(h ^ a, 0xD1B54A32D192ED03u);
    }
    a = 0;
    memcpy(&a, p, length);
    return mix(h ^ a, 0xA0761D6478BD642Fu);
}

// ---- the vocabulary

constexpr int ID_BITS = 21, RANK_BITS = 22;           // a pair and its rank are one integer

// (left id, right id) -> rank, and rank -> the id made.
class Merges {
    std::vector<uint64_t> slots;
    std::vector<uint32_t> made_, byte_rank;
    uint64_t mask;

    static uint64_t pack(uint32_t left, uint32_t right) { return uint64_t(left) << ID_BITS | right; }
    static uint64_t hash(uint64_t pair) { return (pair * 0x9E3779B97F4A7C15u) >> 20; }

public:
    uint32_t byte_id[256];

    Merges(const uint32_t* bytes, const uint32_t* left, const uint32_t* right, const uint32_t* made, size_t n)
        : made_(made, made + n), byte_rank(65536, NONE) {
        size_t size = 16;
        while (size < 2 * n) size *= 2;
        slots.assign(size, ~uint64_t(0));
        mask = size - 1;
        for (size_t rank = 0; rank < n; rank++) {
            uint64_t pair = pack(left[rank], right[rank]), i = hash(pair) & mask;
            while (slots[i] != ~uint64_t(0)) i = (i + 1) & mask;
            slots[i] = pair << RANK_BITS | rank;
        }
        std::copy(bytes, bytes + 256, byte_id);
        for (int a = 0; a < 256; a++)
            for (int b = 0; b < 256; b++) byte_rank[a << 8 | b] = rank(byte_id[a], byte_id[b]);
    }

    // The merge's place in the order, or NONE.
    uint32_t rank(uint32_t left, uint32_t right) const {
        uint64_t pair = pack(left, right);
        for (uint64_t i = hash(pair) & mask;; i = (i + 1) & mask) {
            if (slots[i] >> RANK_BITS == pair) return uint32_t(slots[i] & ((1u << RANK_BITS) - 1));
            if (slots[i] == ~uint64_t(0)) return NONE;
        }
    }
    uint32_t rank_of_bytes(uint8_t a, uint8_t b) const { return byte_rank[a << 8 | b]; }
    uint32_t made(uint32_t rank) const { return made_[rank]; }
};

// ---- merging one word

constexpr size_t SHORT_MERGE = 40;            // up to this length looking through all pairs beats the heap

class Merger {
    const Merges& merges;
    std::vector<uint32_t> ids, after, before;
    std::vector<uint64_t> heap;               // rank above the place: the least is merged next, the leftmost first

    // O(n^2): merge the pair of lowest rank, the leftmost if there are several, until none is left.
    size_t merge_short(const uint8_t* p, size_t n, uint32_t* id) const {
        uint32_t rank[SHORT_MERGE];
        for (size_t i = 0; i < n; i++) id[i] = merges.byte_id[p[i]];
        for (size_t i = 0; i + 1 < n; i++) rank[i] = merges.rank_of_bytes(p[i], p[i + 1]);
        while (n > 1) {
            size_t at = 0;
            for (size_t i = 1; i + 1 < n; i++) at = rank[i] < rank[at] ? i : at;
            if (rank[at] == NONE) break;
            id[at] = merges.made(rank[at]);
            n--;
            for (size_t i = at + 1; i < n; i++) id[i] = id[i + 1];
            for (size_t i = at; i + 1 < n; i++) rank[i] = rank[i + 1];
            if (at > 0) rank[at - 1] = merges.rank(id[at - 1], id[at]);
            if (at + 1 < n) rank[at] = merges.rank(id[at], id[at + 1]);
        }
        return n;
    }

    void push(uint32_t place) {
        uint32_t next = after[place];
        if (next == NONE) return;
        uint32_t rank = merges.rank(ids[place], ids[next]);
        if (rank == NONE) return;
        heap.push_back(uint64_t(rank) << 32 | place);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }

    // O(n log n): a linked list of tokens and a heap of pairs. An entry is out of date if its pair's rank has changed.
    size_t merge_long(const uint8_t* p, size_t n, uint32_t* out) {
        ids.resize(n), after.resize(n), before.resize(n), heap.clear();
        for (size_t i = 0; i < n; i++) {
            ids[i] = merges.byte_id[p[i]];
            after[i] = i + 1 < n ? uint32_t(i + 1) : NONE;
            before[i] = i ? uint32_t(i - 1) : NONE;
            uint32_t rank = i + 1 < n ? merges.rank_of_bytes(p[i], p[i + 1]) : NONE;
            if (rank != NONE) heap.push_back(uint64_t(rank) << 32 | i);
        }
        std::make_heap(heap.begin(), heap.end(), std::greater<>());
        while (!heap.empty()) {
            std::pop_heap(heap.begin(), heap.end(), std::greater<>());
            uint32_t rank = uint32_t(heap.back() >> 32), i = uint32_t(heap.back());
            heap.pop_back();
            uint32_t j = ids[i] == NONE ? NONE : after[i];
            if (j == NONE || merges.rank(ids[i], ids[j]) != rank) continue;
            ids[i] = merges.made(rank), ids[j] = NONE;
            after[i] = after[j];
            if (after[i] != NONE) before[after[i]] = i;
            push(i);
            if (before[i] != NONE) push(before[i]);
        }
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
            if (ids[i] != NONE) out[count++] = ids[i];
        return count;
    }

public:
    explicit Merger(const Merges& merges) : merges(merges) {}

    // Writes the ids of a word of n bytes, at most n of them; returns how many.
    size_t operator()(const char* word, size_t n, uint32_t* out) {
        auto p = reinterpret_cast<const uint8_t*>(word);
        return n <= SHORT_MERGE ? merge_short(p, n, out) : merge_long(p, n, out);
    }
};

// ---- the cache

// Memory of zeros for the tables, in huge pages where the system has them: a table is touched all over at random.
template <class T>
struct Zeros {
    T* data = nullptr;
    size_t size = 0;
    explicit Zeros(size_t n) : size(n) {
        data = static_cast<T*>(std::aligned_alloc(1 << 21, (n * sizeof(T) + (1 << 21) - 1) >> 21 << 21));
        if (!data) throw std::bad_alloc();
        huge_pages(data, n * sizeof(T));
        clear();
    }
    Zeros(const Zeros&) = delete;
    Zeros& operator=(Zeros&& other) {
        std::swap(data, other.data), std::swap(size, other.size);
        return *this;
    }
    ~Zeros() { std::free(data); }
    void clear() { memset(static_cast<void*>(data), 0, size * sizeof(T)); }
    static void huge_pages(void* p, size_t bytes);
};

#ifdef __linux__
template <class T>
void Zeros<T>::huge_pages(void* p, size_t bytes) { madvise(p, bytes, MADV_HUGEPAGE); }
#else
template <class T>
void Zeros<T>::huge_pages(void*, size_t) {}
#endif

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

struct LongEntry { uint64_t hash; uint32_t place, length, count; };        // arena: the word's bytes, then its ids

constexpr size_t FEWEST_ENTRIES = 1 << 14, MOST_ENTRIES = 1 << 20;         // 0.5 and 32 MB
constexpr size_t LONG_ENTRIES = 1 << 15, LONGEST_CACHED = 256;
constexpr size_t MOST_ARENA = 1 << 21;                                     // ids: 4 or 8 MB
constexpr size_t NEAR = 8;                                                 // entries between a word and its own place

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
        std::swap(old.data, table.data), std::swap(old.size, table.size);
        used = 0;
        for (size_t i = 0; i < old.size; i++)
            if (old.data[i].key) *room(old.data[i].key) = old.data[i];
    }

public:
    // A cache that can take `words` words before it has to grow.
    explicit Cache(size_t words) : table(size_for(words)) {}

    void prefetch(uint64_t hash) const { __builtin_prefetch(pair_of(hash)); }

    // The likely place of a word's entry: right if its key is the word's.
    const Entry<T>* guess(const Key& key, uint64_t hash) const {
        const Entry<T>* e = pair_of(hash);
        return e + (e[1].key == key);
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
        const LongEntry& e = long_table.data[hash & (LONG_ENTRIES - 1)];
        if (e.hash != hash || e.length != length || memcmp(&arena[e.place], word, length)) return nullptr;
        *count = e.count;
        return &arena[e.place + cells(length)];
    }

    void insert_long(const char* word, size_t length, uint64_t hash, const uint32_t* ids, size_t count) {
        if (arena.size() > MOST_ARENA) clear();
        size_t place = arena.size();
        arena.resize(place + cells(length));
        memcpy(&arena[place], word, length);
        arena.insert(arena.end(), ids, ids + count);
        long_table.data[hash & (LONG_ENTRIES - 1)] = {hash, uint32_t(place), uint32_t(length), uint32_t(count)};
    }

    void clear() {
        table.clear(), long_table.clear(), arena.clear();
        used = 0;
    }

    size_t bytes() const {
        return table.size * sizeof(Entry<T>) + long_table.size * sizeof(LongEntry) + arena.capacity() * sizeof(T);
    }
};

// ---- output

// A growing buffer of ids.
template <class T>
class Sink {
    size_t capacity = 0;

public:
    T* data = nullptr;
    size_t count = 0;

    Sink() = default;
    Sink(Sink&& other) : capacity(other.capacity), data(other.data), count(other.count) {
        other.data = nullptr, other.count = other.capacity = 0;
    }
    ~Sink() { std::free(data); }

    void reserve(size_t n) {
        if (n <= capacity) return;
        capacity = std::max(n, capacity + capacity / 2);
        T* larger = static_cast<T*>(std::realloc(data, capacity * sizeof(T)));
        if (!larger) throw std::bad_alloc();
        data = larger;
    }

    // Where the next `n` ids may be written; then `count` has to be moved on.
    T* room(size_t n) {
        reserve(count + n);
        return data + count;
    }

    template <class U>
    void append(const U* ids, size_t n) {
        std::copy(ids, ids + n, room(n));
        count += n;
    }

    // Hands over the memory, cut to size.
    T* release() {
        T* fitting = static_cast<T*>(std::realloc(data, std::max<size_t>(count * sizeof(T), 1)));
        T* result = fitting ? fitting : data;
        data = nullptr;
        return result;
    }
};

// ---- encoding

constexpr size_t BATCH = 256;                 // words whose cache lines are fetched ahead

// All that one thread needs to encode.
template <class T>
class State {
    Cutter cutter;
    Merger merger;
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
    Sink<T> scratch;

    State(const Merges& merges, Pattern pattern, size_t words) : cutter(pattern), merger(merges), cache(words) {}

    void encode(const char* text, size_t length, Sink<T>& sink) {
        cutter(text, length, [&](const char* base, const uint32_t* starts, size_t n) {
            if (n == 1) return encode_one(base, starts[1], sink);
            T* out = sink.room(starts[n] + Entry<T>::INSIDE);     // an id a byte at most, and what memcpy writes too much
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

// ---- special tokens

// Finds the allowed special tokens in a text: the leftmost, and of those that begin there the longest.
class Specials {
    std::vector<std::pair<std::string, uint32_t>> by_first[256];
    std::vector<uint8_t> firsts;

public:
    void add(const std::string& text, uint32_t id) {
        uint8_t first = text[0];
        if (by_first[first].empty()) firsts.push_back(first);
        by_first[first].push_back({text, id});
    }

    void finish() {
        for (uint8_t first : firsts)
            std::stable_sort(by_first[first].begin(), by_first[first].end(),
                             [](auto& a, auto& b) { return a.first.size() > b.first.size(); });
    }

    bool empty() const { return firsts.empty(); }

    // The next special token at or after p; its place, or `end`.
    const char* next(const char* p, const char* end, size_t* length, uint32_t* id) const {
        for (; p < end; p++) {
            if (firsts.size() == 1) {
                p = static_cast<const char*>(memchr(p, firsts[0], end - p));
                if (!p) return end;
            }
            for (auto& [text, number] : by_first[uint8_t(*p)])
                if (size_t(end - p) >= text.size() && !memcmp(p, text.data(), text.size())) {
                    *length = text.size(), *id = number;
                    return p;
                }
        }
        return end;
    }

    // Calls plain(text, length) and special(id) for the parts of a text in their order.
    template <class P, class S>
    void split(const char* p, size_t n, P plain, S special) const {
        for (const char* end = p + n; p < end;) {
            size_t length = 0;
            uint32_t id = 0;
            const char* next_special = empty() ? end : next(p, end, &length, &id);
            if (next_special > p) plain(p, size_t(next_special - p));
            if (length) special(id);
            p = next_special + length;
        }
    }
};
