// Merging one word: its bytes become ids by replaying the merges, lowest rank first. The definition:
// minillm/tokenizer/merge.py.
//
//   Merges   the vocabulary: (left id, right id) -> rank, rank -> id made.
//   Merger   a short word by the definition, O(n^2) but without any set-up; a long one with a heap, O(n log n); and one of
//            kilobytes window by window, so that the time for a byte stays the same.
//
// Why windows give the same ids: as long as no merge reaches over the places between tokens t1 t2 ... tn, what happens
// inside each does not depend on the others, and the first merge that did reach over such a place, between ti and tj,
// would also happen to those two alone. So a row of tokens is the encoding of its text if each neighbouring pair is that of
// the pair's text; and in an encoding each pair is. Hence a window may begin at a token's start, and go on from what is
// before it, if its own encoding begins with that token again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/masks.h"

namespace minillm::text {
constexpr uint32_t NONE = UINT32_MAX;

constexpr int ID_BITS = 21, RANK_BITS = 22;  // a pair and its rank are one integer

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

constexpr size_t SHORT_MERGE = 40;  // up to this length looking through all pairs beats the heap
constexpr size_t WINDOW = 4096, OVERLAP = 8;  // ids before any merge; tokens of a window that the next one begins with

// Tokens that a word is as a whole, whatever merges make of it (ignore_merges).
class WholeWords {
    static constexpr int BITS = 18;
    std::unordered_map<std::string, uint32_t> ids;
    std::vector<bool> wide = std::vector<bool>(1 << BITS);  // those that may be cut, at a hash of their length and ends

    static uint64_t place(const char* word, size_t n) {
        uint32_t ends[2];
        memcpy(ends, word, 4), memcpy(ends + 1, word + n - 4, 4);
        return (((uint64_t(ends[0]) << 32 | ends[1]) ^ n) * 0x9E3779B97F4A7C15u) >> (64 - BITS);
    }

public:
    void add(const std::string& word, uint32_t id) {
        ids[word] = id;
        if (word.size() >= 4 && any_from(WIDE, word.data(), word.size())) wide[place(word.data(), word.size())] = true;
    }

    // The word's id, or NONE.
    uint32_t find(const char* word, size_t n) const {
        auto found = ids.empty() ? ids.end() : ids.find(std::string(word, n));
        return found == ids.end() ? NONE : found->second;
    }

    // Whether a word of at least 4 bytes that has a wide character is among them.
    bool has_wide(const char* word, size_t n) const { return wide[place(word, n)] && find(word, n) != NONE; }
};

class Merger {
    const Merges& merges;
    const WholeWords* whole;
    std::vector<uint32_t> ids, after, before;
    std::vector<uint64_t> heap;  // rank above the place: the least is merged next, the leftmost first

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
    // Leaves in `ids` each token at its first place, and NONE at the others.
    template <class R>
    void merge_long(const uint32_t* first, size_t n, R rank_at) {
        ids.assign(first, first + n), after.resize(n), before.resize(n), heap.clear();
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
    }

    struct Token {
        size_t begin;
        uint32_t id;
    };
    std::vector<Token> done;
    std::vector<uint32_t> plain;

    // Appends the tokens of plain[begin] .. plain[end].
    void merge_window(size_t begin, size_t end) {
        const uint32_t* id = plain.data() + begin;
        merge_long(id, end - begin, [&](size_t i) { return merges.rank(id[i], id[i + 1]); });
        for (size_t i = 0; i < end - begin; i++)
            if (ids[i] != NONE) done.push_back({begin + i, ids[i]});
    }

    // Whether the token at `at`, and its end, are the same as `token`, whose end is `end`.
    bool again(size_t at, const Token& token, size_t end) const {
        return done[at].id == token.id && at + 1 < done.size() && done[at + 1].begin == end;
    }

    size_t merge_in_windows(uint32_t* out, size_t n) {
        plain.assign(out, out + n), done.clear();
        merge_window(0, WINDOW);
        for (size_t seen = WINDOW, back = OVERLAP; seen < n;) {
            if (back + 1 >= done.size()) {  // nothing is certain: all at once
                done.clear(), merge_window(0, n);
                break;
            }
            size_t keep = done.size() - back;
            Token token = done[keep];
            size_t token_end = done[keep + 1].begin, next = std::min(n, std::max(seen, token.begin) + WINDOW);
            done.resize(keep);
            merge_window(token.begin, next);
            if (again(keep, token, token_end)) seen = next, back = OVERLAP;
            else done.resize(keep), back = 2 * back;
        }
        std::transform(done.begin(), done.end(), out, [](const Token& token) { return token.id; });
        return done.size();
    }

public:
    explicit Merger(const Merges& merges, const WholeWords* whole = nullptr) : merges(merges), whole(whole) {}

    // Merges n ids in place; returns how many are left. rank_at(i): the rank of the pair at i, as they come.
    template <class R>
    size_t merge(uint32_t* ids, size_t n, R rank_at) {
        if (n <= SHORT_MERGE) return merge_short(ids, n, rank_at);
        if (n > 2 * WINDOW) return merge_in_windows(ids, n);
        merge_long(ids, n, rank_at);
        return std::remove_copy(this->ids.begin(), this->ids.begin() + n, ids, NONE) - ids;
    }

    // Whether a word of at least 4 bytes that has a wide character is one token, whatever merges make of it.
    bool is_whole(const char* text, size_t n) const { return whole && whole->has_wide(text, n); }

    // Writes the ids of a word of n bytes, or of a piece of one, at most n of them; returns how many.
    size_t operator()(const char* text, size_t n, uint32_t* out, bool piece) {
        if (!piece && whole && (*out = whole->find(text, n)) != NONE) return 1;
        auto p = reinterpret_cast<const uint8_t*>(text);
        for (size_t i = 0; i < n; i++) out[i] = merges.byte_id[p[i]];
        return merge(out, n, [&](size_t i) { return merges.rank_of_bytes(p[i], p[i + 1]); });
    }
};
}  // namespace minillm::text
