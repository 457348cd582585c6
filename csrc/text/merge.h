// Merging one word: its bytes become ids by replaying the merges, lowest rank first. The definition:
// minillm/tokenizer/merge.py.
//
//   Merges   the vocabulary: (left id, right id) -> rank, rank -> id made.
//   Merger   a short word by the definition, O(n^2) but without any set-up; a long one with a heap, O(n log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

namespace minillm::text {
constexpr uint32_t NONE = UINT32_MAX;

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

constexpr size_t SHORT_MERGE = 40;            // up to this length looking through all pairs beats the heap

// Tokens that a word is as a whole, whatever merges make of it (ignore_merges).
using WholeWords = std::unordered_map<std::string, uint32_t>;

class Merger {
    const Merges& merges;
    const WholeWords* whole;
    std::string word;
    std::vector<uint32_t> ids, after, before;
    std::vector<uint64_t> heap;               // rank above the place: the least is merged next, the leftmost first

    // O(n^2): merge the pair of lowest rank, the leftmost if there are several, until none is left.
    template <class R>
    size_t merge_short(uint32_t* id, size_t n, R rank_at) const {
        uint32_t rank[SHORT_MERGE];
        for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_at(i);
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
    template <class R>
    size_t merge_long(uint32_t* out, size_t n, R rank_at) {
        ids.assign(out, out + n), after.resize(n), before.resize(n), heap.clear();
        for (size_t i = 0; i < n; i++) {
            after[i] = i + 1 < n ? uint32_t(i + 1) : NONE;
            before[i] = i ? uint32_t(i - 1) : NONE;
            uint32_t rank = i + 1 < n ? rank_at(i) : NONE;
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
    explicit Merger(const Merges& merges, const WholeWords* whole = nullptr) : merges(merges), whole(whole) {}

    // Merges n ids in place; returns how many are left. rank_at(i): the rank of the pair at i, as they come.
    template <class R>
    size_t merge(uint32_t* ids, size_t n, R rank_at) {
        return n <= SHORT_MERGE ? merge_short(ids, n, rank_at) : merge_long(ids, n, rank_at);
    }

    // Writes the ids of a word of n bytes, at most n of them; returns how many.
    size_t operator()(const char* text, size_t n, uint32_t* out) {
        if (whole && !whole->empty()) {
            word.assign(text, n);
            if (auto found = whole->find(word); found != whole->end()) return *out = found->second, 1;
        }
        auto p = reinterpret_cast<const uint8_t*>(text);
        for (size_t i = 0; i < n; i++) out[i] = merges.byte_id[p[i]];
        return merge(out, n, [&](size_t i) { return merges.rank_of_bytes(p[i], p[i + 1]); });
    }
};
}  // namespace minillm::text
