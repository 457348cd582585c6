// WordCounter: counts the words of texts, thread by thread, and learns merges from the sum, for Python.
#pragma once

#include <memory>

#include "parallel.h"
#include "pretokenize.cpp"
#include "python.h"
#include "specials.cpp"
#include "train.cpp"

class WordCounter {
    Pattern pattern;
    std::vector<std::unique_ptr<WordCounts>> counts;          // one a thread
    Specials specials;

    WordCounts& total() {
        for (size_t i = 1; i < counts.size(); i++) counts[0]->merge(*counts[i]);
        counts.resize(1);
        return *counts[0];
    }

public:
    WordCounter(const std::string& pattern, const std::vector<std::string>& special_texts)
        : pattern(pattern_named(pattern)) {
        counts.push_back(std::make_unique<WordCounts>());
        for (auto& text : special_texts) specials.add(text, 0);
        specials.finish();
    }

    void add(const py::list& list, size_t threads) {
        Texts texts = utf8_of_all(list);
        py::gil_scoped_release release;
        while (counts.size() < threads) counts.push_back(std::make_unique<WordCounts>());
        parallel(texts.size(), threads, [&](size_t thread, size_t i) {
            Cutter cutter(pattern);
            auto use = [&](const char* base, const uint32_t* starts, size_t n) {
                for (size_t j = 0; j < n; j += COUNTED_TOGETHER)
                    counts[thread]->add_words(base, starts + j, std::min(COUNTED_TOGETHER, n - j));
            };
            specials.split(texts[i].first, texts[i].second,
                           [&](const char* p, size_t n) { cutter(p, n, use); }, [](uint32_t) {});
        });
    }

    void add_words(const std::vector<std::pair<std::string, uint64_t>>& words) {
        for (auto& [word, count] : words) counts[0]->add_word(word, count);
    }

    py::dict words() {
        py::dict found;
        total().each([&](const char* word, size_t n, uint64_t count) { found[py::bytes(word, n)] = count; });
        return found;
    }

    size_t distinct() { return total().size(); }

    // (n, 2) ids of the merges; fewer than asked for if no pair is left. `progress(done, total)` now and then.
    Ids learn(Ids byte_ids, size_t n_merges, bool textbook, const py::object& progress) {
        std::vector<std::pair<uint32_t, uint32_t>> merges;
        {
            py::gil_scoped_release release;
            Trainer trainer(total(), byte_ids.data(), textbook);
            std::pair<uint32_t, uint32_t> merged;
            while (merges.size() < n_merges && trainer.step(&merged)) {
                merges.push_back(merged);
                if (merges.size() % 64 == 0) {
                    py::gil_scoped_acquire acquire;
                    if (PyErr_CheckSignals()) throw py::error_already_set();
                    if (!progress.is_none()) progress(merges.size(), n_merges);
                }
            }
        }
        Ids result({py::ssize_t(merges.size()), py::ssize_t(2)});
        if (!merges.empty()) memcpy(result.mutable_data(), merges.data(), merges.size() * 8);
        return result;
    }
};

static void bind_counter(py::module_& m) {
    py::class_<WordCounter>(m, "WordCounter")
        .def(py::init<const std::string&, const std::vector<std::string>&>(), py::arg("pattern"), py::arg("specials"))
        .def("add", &WordCounter::add, py::arg("texts"), py::arg("threads"))
        .def("add_words", &WordCounter::add_words, py::arg("words"))
        .def("words", &WordCounter::words)
        .def("distinct", &WordCounter::distinct)
        .def("learn", &WordCounter::learn, py::arg("byte_ids"), py::arg("n_merges"), py::arg("textbook"),
             py::arg("progress"));
}
