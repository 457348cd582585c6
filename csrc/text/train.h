// Learning the merges from counted words. The readable version, with the idea: minillm/tokenizer/train.py.
//
// All distinct words lie one behind the other in flat arrays, one place a byte, a closing place a word. A token is
// written at its first and its last place, so its neighbours are found by adding and subtracting lengths:
//
//   pair_at[place]   which pair begins with the token here, so a count goes down without any look-up by ids
//   places of a pair    a stretch of one array, in order; out-of-date ones are known by pair_at
//
// A merge visits the places of its pair once. Every pair that it creates holds the new token, so the pairs that are
// new in this merge are kept in two arrays by neighbour, and no hash table is needed at all.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "text/count.h"
#include "text/merge.h"

namespace minillm::text {
struct PairInfo {
    uint32_t left, right;
    int64_t count = 0;
    uint32_t first = 0, places = 0;           // its stretch of the array of places
};

class Trainer {
    static constexpr uint32_t END = NONE - 1;
    std::vector<uint32_t> token, pair_at, word_at, place_of, length;      // length: in bytes, by token
    std::vector<int64_t> weight;
    std::vector<PairInfo> pairs;
    std::vector<std::string> text;            // by token, for the textbook's rule
    std::vector<uint32_t> with_left, with_right;      // pairs (t, new) and (new, t) of this merge, by t
    std::vector<std::pair<uint32_t, uint32_t>> fresh;                     // (pair, place) of this merge
    bool textbook;

    struct Promise {
        int64_t count;                        // the pair's when it was pushed; it has only fallen since
        uint32_t pair;
    };
    std::vector<Promise> heap;

    // Which of two promises comes later. Equal counts: see minillm/tokenizer/train.py for the two rules.
    bool later(const Promise& a, const Promise& b) const {
        if (a.count != b.count) return a.count < b.count;
        const PairInfo &p = pairs[a.pair], &q = pairs[b.pair];
        if (!textbook) return p.left != q.left ? p.left > q.left : p.right > q.right;
        int order = text[p.left].compare(text[q.left]);
        return order ? order < 0 : text[p.right] < text[q.right];
    }
    auto by_promise() {
        return [this](const Promise& a, const Promise& b) { return later(a, b); };
    }

    void push(uint32_t pair) {
        heap.push_back({pairs[pair].count, pair});
        std::push_heap(heap.begin(), heap.end(), by_promise());
    }

    // The most frequent pair, or NONE.
    uint32_t pop() {
        while (!heap.empty()) {
            std::pop_heap(heap.begin(), heap.end(), by_promise());
            Promise top = heap.back();
            heap.pop_back();
            int64_t now = pairs[top.pair].count;
            if (now == top.count) return top.pair;
            if (now > 0) push(top.pair);
        }
        return NONE;
    }

    void lay_out(const WordCounts& counts, const uint32_t* byte_id) {
        size_t total = 1;
        counts.each([&](const char*, size_t n, uint64_t) { total += n + 1; });
        if (total >= END) throw std::length_error("the distinct words of the corpus must fit into 4 GiB together");
        token.reserve(total), word_at.reserve(total);
        weight.reserve(counts.size());
        token.push_back(END), word_at.push_back(0);
        counts.each([&](const char* word, size_t n, uint64_t count) {
            for (size_t i = 0; i < n; i++) token.push_back(byte_id[uint8_t(word[i])]);
            token.push_back(END);
            word_at.resize(token.size(), uint32_t(weight.size()));
            weight.push_back(int64_t(count));
        });
        pair_at.assign(total, NONE);
    }

    void index_pairs() {
        std::vector<uint32_t> pair_of(65536, NONE);
        for (size_t i = 0; i + 1 < token.size(); i++) {
            if (token[i] == END || token[i + 1] == END) continue;
            uint32_t& pair = pair_of[token[i] << 8 | token[i + 1]];
            if (pair == NONE) {
                pair = uint32_t(pairs.size());
                pairs.push_back({token[i], token[i + 1]});
            }
            pair_at[i] = pair;
            pairs[pair].count += weight[word_at[i]];
            pairs[pair].places++;
        }
        uint32_t sum = 0;
        for (PairInfo& pair : pairs) {
            pair.first = sum;
            sum += pair.places;
            pair.places = 0;
        }
        place_of.resize(sum);
        for (size_t i = 0; i < token.size(); i++)
            if (pair_at[i] != NONE) {
                PairInfo& pair = pairs[pair_at[i]];
                place_of[pair.first + pair.places++] = uint32_t(i);
            }
        for (uint32_t pair = 0; pair < pairs.size(); pair++) heap.push_back({pairs[pair].count, pair});
        std::make_heap(heap.begin(), heap.end(), by_promise());
    }

    // The pair at `place` is now one that holds the new token.
    void begin_pair(uint32_t place, uint32_t left, uint32_t right, uint32_t made, int64_t count) {
        uint32_t& pair = left == made ? with_right[right] : with_left[left];
        if (pair == NONE) {
            pair = uint32_t(pairs.size());
            pairs.push_back({left, right});
        }
        pair_at[place] = pair;
        pairs[pair].count += count;
        pairs[pair].places++;
        fresh.push_back({pair, place});
    }

    void merge_at(uint32_t place, uint32_t left, uint32_t right, uint32_t made) {
        uint32_t second = place + length[left], after = second + length[right], before = NONE;
        int64_t count = weight[word_at[place]];
        if (token[place - 1] != END) {
            before = place - length[token[place - 1]];
            pairs[pair_at[before]].count -= count;
        }
        if (token[after] != END) pairs[pair_at[second]].count -= count;
        pair_at[second] = NONE;
        pair_at[place] = NONE;
        token[place] = token[after - 1] = made;
        if (before != NONE) begin_pair(before, token[before], made, made, count);
        if (token[after] != END) begin_pair(place, made, token[after], made, count);
    }

    // Put the new pairs' places where they belong, pair by pair, and the pairs into the heap.
    void index_fresh(size_t first_pair) {
        size_t sum = place_of.size();
        for (size_t i = first_pair; i < pairs.size(); i++) {
            pairs[i].first = uint32_t(sum);
            sum += pairs[i].places;
            pairs[i].places = 0;
            with_left[pairs[i].left] = with_right[pairs[i].right] = NONE;
        }
        if (sum >= END) throw std::length_error("the corpus has too many distinct words");
        place_of.resize(sum);
        for (auto [pair, place] : fresh) place_of[pairs[pair].first + pairs[pair].places++] = place;
        for (size_t i = first_pair; i < pairs.size(); i++)
            if (pairs[i].count > 0) push(uint32_t(i));
        fresh.clear();
    }

    void apply(uint32_t pair, uint32_t made) {
        PairInfo info = pairs[pair];
        size_t first_pair = pairs.size();
        length.push_back(length[info.left] + length[info.right]);
        if (textbook) text.push_back(text[info.left] + text[info.right]);
        with_left.push_back(NONE), with_right.push_back(NONE);
        for (uint32_t i = 0; i < info.places; i++) {
            if (i + 8 < info.places) __builtin_prefetch(&pair_at[place_of[info.first + i + 8]]);
            uint32_t place = place_of[info.first + i];
            if (pair_at[place] == pair) merge_at(place, info.left, info.right, made);
        }
        pairs[pair].count = 0;
        index_fresh(first_pair);
    }

public:
    Trainer(const WordCounts& counts, const uint32_t* byte_id, bool textbook)
        : length(256, 1), text(256), with_left(256, NONE), with_right(256, NONE), textbook(textbook) {
        for (int byte = 0; byte < 256; byte++) text[byte_id[byte]] = char(byte);
        lay_out(counts, byte_id);
        index_pairs();
    }

    // Make the next merge; false if no pair is left.
    bool step(std::pair<uint32_t, uint32_t>* merged) {
        uint32_t pair = pop();
        if (pair == NONE) return false;
        *merged = {pairs[pair].left, pairs[pair].right};
        apply(pair, uint32_t(length.size()));
        return true;
    }
};
}  // namespace minillm::text
