// Byte-level BPE encoding. The readable version, with the definition: minillm/tokenizer/bpe.py and merge.py.
//
// A text is cut into words (pretokenize.cpp), and most words have been seen before, so encoding is mostly looking up:
//
//   Cache    word -> ids. A word of at most 15 bytes is two integers, compared as such. One entry is 32 bytes with
//            the ids inside it, a pair of entries is one cache line, and the lines of the next words are fetched while
//            this one is looked up.
//   Merger   a word that is not there is merged: by the definition when it is short, by a heap when it is long.
//   Sink     where ids go: a buffer that becomes the NumPy array, 2 bytes an id where all ids fit.
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
    Key mask[SHORT_WORD + 1];
    constexpr KeyMasks() : mask() {
        for (size_t n = 0; n <= SHORT_WORD; n++) {
            mask[n].low = n >= 8 ? ~uint64_t(0) : (uint64_t(1) << (8 * n)) - 1;
            mask[n].high = n <= 8 ? 0 : (uint64_t(1) << (8 * (n - 8))) - 1;
        }
    }
};
constexpr KeyMasks KEY_MASKS;

// The key of a word; reads 16 bytes whatever its length. Little-endian order is not needed, only the same every time.
inline Key key_of(const char* p, size_t length) {
    if (length > SHORT_WORD) return {0, 0};
    Key k;
    memcpy(&k.low, p, 8);
    memcpy(&k.high, p + 8, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    k.low = __builtin_bswap64(k.low), k.high = __builtin_bswap64(k.high);
#endif
    const Key& mask = KEY_MASKS.mask[length];
    return {k.low & mask.low, (k.high & mask.high) | uint64_t(length) << 56};
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

constexpr uint32_t INSIDE = 3;                // ids kept in the entry itself

struct Entry {
    Key key;
    uint32_t ids[INSIDE];                     // more than three are in the arena, at ids[0]
    uint32_t count;
};
static_assert(sizeof(Entry) == 32, "two entries a cache line");

struct LongEntry { uint64_t hash; uint32_t place, length, count; };        // arena: the word's bytes, then its ids

constexpr size_t FIRST_ENTRIES = 1 << 17, MOST_ENTRIES = 1 << 20;          // 4 and 32 MB
constexpr size_t LONG_ENTRIES = 1 << 15, LONGEST_CACHED = 256;
constexpr size_t MOST_ARENA = 1 << 21;                                     // of 4-byte cells: 8 MB

class Cache {
    Zeros<Entry> table{FIRST_ENTRIES};
    size_t used = 0;
    Zeros<LongEntry> long_table{LONG_ENTRIES};
    std::vector<uint32_t> arena;

    Entry* pair_of(uint64_t hash) const { return table.data + (hash & (table.size - 2)); }

    // A free entry near the word's own place. A full neighbourhood in a table of full size loses its first entry:
    // what is common comes back at once, and nobody can make the table slow by choosing words that collide.
    Entry* room(const Key& key) {
        uint64_t hash = hash_of(key);
        for (size_t step = 0; step < 8; step++) {
            Entry* e = table.data + (((hash & ~uint64_t(1)) + step) & (table.size - 1));
            if (!e->key) {
                used++;
                return e;
            }
        }
        return pair_of(hash) + (hash >> 63);
    }

    void grow() {
        Zeros<Entry> old(2 * table.size);
        std::swap(old.data, table.data), std::swap(old.size, table.size);
        used = 0;
        for (size_t i = 0; i < old.size; i++)
            if (old.data[i].key) *room(old.data[i].key) = old.data[i];
    }

public:
    void prefetch(uint64_t hash) const { __builtin_prefetch(pair_of(hash)); }

    // The likely place of a word's entry: right if its key is the word's.
    const Entry* guess(const Key& key, uint64_t hash) const {
        const Entry* e = pair_of(hash);
        return e + (e[1].key == key);
    }

    const Entry* find(const Key& key, uint64_t hash) const {
        for (size_t step = 0; step < 8; step++) {
            const Entry* e = table.data + (((hash & ~uint64_t(1)) + step) & (table.size - 1));
            if (e->key == key) return e;
            if (!e->key) return nullptr;
        }
        return nullptr;
    }

    const uint32_t* ids(const Entry& e) const { return e.count <= INSIDE ? e.ids : arena.data() + e.ids[0]; }

    void insert(const Key& key, const uint32_t* ids, size_t count) {
        if (used > table.size / 2 && table.size < MOST_ENTRIES) grow();
        if (arena.size() > MOST_ARENA) clear();
        Entry e{key, {0, 0, 0}, uint32_t(count)};
        if (count <= INSIDE) {
            std::copy(ids, ids + count, e.ids);
        } else {
            e.ids[0] = uint32_t(arena.size());
            arena.insert(arena.end(), ids, ids + count);
        }
        *room(key) = e;
    }

    // A word of more than 15 bytes: its ids and their number, or null.
    const uint32_t* find_long(const char* word, size_t length, uint64_t hash, size_t* count) const {
        const LongEntry& e = long_table.data[hash & (LONG_ENTRIES - 1)];
        if (e.hash != hash || e.length != length || memcmp(&arena[e.place], word, length)) return nullptr;
        *count = e.count;
        return &arena[e.place + (length + 3) / 4];
    }

    void insert_long(const char* word, size_t length, uint64_t hash, const uint32_t* ids, size_t count) {
        if (arena.size() > MOST_ARENA) clear();
        size_t place = arena.size();
        arena.resize(place + (length + 3) / 4);
        memcpy(&arena[place], word, length);
        arena.insert(arena.end(), ids, ids + count);
        long_table.data[hash & (LONG_ENTRIES - 1)] = {hash, uint32_t(place), uint32_t(length), uint32_t(count)};
    }

    void clear() {
        table.clear(), long_table.clear(), arena.clear();
        used = 0;
    }

    size_t bytes() const {
        return table.size * sizeof(Entry) + long_table.size * sizeof(LongEntry) + arena.capacity() * sizeof(uint32_t);
    }
};

// ---- output

// A growing buffer of ids, 2 or 4 bytes each.
class Sink {
    bool narrow;
    size_t capacity = 0;

public:
    char* data = nullptr;
    size_t count = 0;

    explicit Sink(bool narrow) : narrow(narrow) {}
    Sink(Sink&& other) : narrow(other.narrow), capacity(other.capacity), data(other.data), count(other.count) {
        other.data = nullptr, other.count = other.capacity = 0;
    }
    ~Sink() { std::free(data); }
    size_t width() const { return narrow ? 2 : 4; }

    void reserve(size_t n) {
        if (n <= capacity) return;
        capacity = std::max(n, capacity + capacity / 2);
        char* larger = static_cast<char*>(std::realloc(data, capacity * width()));
        if (!larger) throw std::bad_alloc();
        data = larger;
    }

    void append(const uint32_t* ids, size_t n) {
        reserve(count + n);
        if (narrow) {
            uint16_t* out = reinterpret_cast<uint16_t*>(data) + count;
            for (size_t i = 0; i < n; i++) out[i] = uint16_t(ids[i]);
        } else {
            memcpy(data + 4 * count, ids, 4 * n);
        }
        count += n;
    }

    // Hands over the memory, cut to size.
    char* release() {
        char* fitting = static_cast<char*>(std::realloc(data, std::max<size_t>(count * width(), 1)));
        char* result = fitting ? fitting : data;
        data = nullptr;
        return result;
    }
};

// ---- encoding

constexpr size_t BATCH = 256;                 // words whose cache lines are fetched ahead

// All that one thread needs to encode.
class State {
    Cutter cutter;
    Merger merger;
    std::vector<uint32_t> merged, ids;

    // A word that was not where it was expected. Returns its ids; they stay valid until the next call.
    const uint32_t* look_further(const char* word, size_t length, const Key& key, uint64_t hash, size_t* count) {
        if (key) {
            if (const Entry* e = cache.find(key, hash)) return *count = e->count, cache.ids(*e);
        } else {
            hash = hash_of(word, length);
            if (const uint32_t* found = cache.find_long(word, length, hash, count)) return found;
        }
        if (merged.size() < length) merged.resize(length);
        *count = merger(word, length, merged.data());
        if (key) cache.insert(key, merged.data(), *count);
        else if (length <= LONGEST_CACHED) cache.insert_long(word, length, hash, merged.data(), *count);
        return merged.data();
    }

    // The ids of words base[starts[0]] .. base[starts[n]] to `out`, which has room for one id a byte, and 3.
    uint32_t* encode_words(const char* base, const uint32_t* starts, size_t n, uint32_t* out) {
        Key keys[BATCH];
        uint64_t hashes[BATCH];
        for (size_t i = 0; i < n; i++) {
            keys[i] = key_of(base + starts[i], starts[i + 1] - starts[i]);
            hashes[i] = hash_of(keys[i]);
            cache.prefetch(hashes[i]);
        }
        for (size_t i = 0; i < n; i++) {
            const Entry* e = cache.guess(keys[i], hashes[i]);
            if (e->key == keys[i] && e->count - 1 < INSIDE) {
                memcpy(out, e->ids, sizeof e->ids);
                out += e->count;
            } else {
                size_t count;
                const uint32_t* found = look_further(base + starts[i], starts[i + 1] - starts[i], keys[i], hashes[i],
                                                     &count);
                memcpy(out, found, count * sizeof *found);
                out += count;
            }
        }
        return out;
    }

public:
    Cache cache;

    State(const Merges& merges, Pattern pattern) : cutter(pattern), merger(merges), ids(CHUNK + PAD + INSIDE) {}

    void encode(const char* text, size_t length, Sink& sink) {
        cutter(text, length, [&](const char* base, const uint32_t* starts, size_t n) {
            if (starts[n] > CHUNK / 2 && n == 1) return encode_one(base, starts[1], sink);
            uint32_t* out = ids.data();
            for (size_t i = 0; i < n; i += BATCH) out = encode_words(base, starts + i, std::min(BATCH, n - i), out);
            sink.append(ids.data(), out - ids.data());
        });
    }

    // One word, cut by whoever calls.
    void encode_one(const char* word, size_t length, Sink& sink) {
        char padded[SHORT_WORD + 1] = {};
        size_t count;
        if (length <= SHORT_WORD) memcpy(padded, word, length);
        Key key = key_of(padded, length);
        if (!length) return;
        const uint32_t* found = look_further(word, length, key, hash_of(key), &count);
        sink.append(found, count);
    }

    size_t bytes() const { return cache.bytes(); }
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
