#include "text/counter.h"

#include "text/pretokenize.h"
#include "text/train.h"

namespace minillm::text {
WordCounter::WordCounter(Pattern pattern, const std::vector<std::string>& special_texts) : pattern(pattern) {
    counts.push_back(std::make_unique<WordCounts>());
    for (auto& text : special_texts) specials.add(text, 0);
    specials.finish();
}

void WordCounter::add(const Texts& texts, size_t threads) {
    while (counts.size() < threads) counts.push_back(std::make_unique<WordCounts>());
    parallel(texts.size(), threads, [&](size_t thread, size_t i) {
        Cutter cutter(pattern);
        auto use = [&](const char* base, const uint32_t* starts, size_t n) {
            for (size_t j = 0; j < n; j += COUNTED_TOGETHER)
                counts[thread]->add_words(base, starts + j, std::min(COUNTED_TOGETHER, n - j));
        };
        specials.split(
            texts[i].data(), texts[i].size(), [&](const char* p, size_t n) { cutter(p, n, use); }, [](uint32_t) {});
    });
}

WordCounts& WordCounter::total() {
    for (size_t i = 1; i < counts.size(); i++) counts[0]->merge(*counts[i]);
    counts.resize(1);
    return *counts[0];
}

std::vector<std::pair<uint32_t, uint32_t>> WordCounter::learn(const uint32_t* byte_ids, size_t n_merges, bool textbook,
                                                              const std::function<void(size_t)>& progress) {
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    Trainer trainer(total(), byte_ids, textbook);
    std::pair<uint32_t, uint32_t> merged;
    while (merges.size() < n_merges && trainer.step(&merged)) {
        merges.push_back(merged);
        if (merges.size() % 64 == 0) progress(merges.size());
    }
    return merges;
}
}  // namespace minillm::text
