// Counts the words of texts, thread by thread, and learns merges from the sum.
#pragma once

#include <functional>
#include <memory>

#include "text/count.h"
#include "text/parallel.h"
#include "text/patterns.h"
#include "text/specials.h"

namespace minillm::text {
class WordCounter {
    Pattern pattern;
    std::vector<std::unique_ptr<WordCounts>> counts;          // one a thread
    Specials specials;

public:
    WordCounter(Pattern pattern, const std::vector<std::string>& special_texts);
    void add(const Texts& texts, size_t threads);
    void add_word(const std::string& word, uint64_t count) { counts[0]->add_word(word, count); }
    WordCounts& total();

    // Merges as pairs of ids; fewer than asked for if no pair is left. `progress(done)` now and then.
    std::vector<std::pair<uint32_t, uint32_t>> learn(const uint32_t* byte_ids, size_t n_merges, bool textbook,
                                                     const std::function<void(size_t)>& progress);
};
}  // namespace minillm::text
