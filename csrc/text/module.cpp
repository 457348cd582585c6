// The extension minillm._cpp.text: pre-tokenizer, encoder and trainer for Python (minillm/tokenizer/fast.py).
//
// It is built once, unlike the kernels: text is bytes, branches and cache lines, and SSE2, which every x86-64 has, does
// all the vector work there is (measured: classifying bytes takes about 5% of encoding). So it needs no copy for each
// instruction set, and a change here does not compile the kernels again.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <mutex>
#include <optional>

#include "bpe_train.cpp"
#include "parallel.h"

namespace py = pybind11;
using Ids = py::array_t<uint32_t, py::array::c_style>;
using Texts = std::vector<std::pair<const char*, size_t>>;

static Pattern pattern_named(const std::string& name) {
    if (name == "gpt2") return Pattern::gpt2;
    if (name == "cl100k") return Pattern::cl100k;
    if (name == "o200k") return Pattern::o200k;
    throw py::value_error("no pattern called '" + name + "' is built in");
}

// A str's UTF-8, which lives as long as the str. Raises UnicodeEncodeError for surrogates, TypeError for no str.
static std::pair<const char*, size_t> utf8(py::handle text) {
    Py_ssize_t length;
    const char* p = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
    if (!p) throw py::error_already_set();
    return {p, size_t(length)};
}

static Texts utf8_of_all(const py::list& texts) {
    Texts found;
    for (py::handle text : texts) found.push_back(utf8(text));
    return found;
}

// Gives the ids' memory to a NumPy array.
template <class T>
static py::array_t<T> as_array(Sink<T>& sink) {
    size_t count = sink.count;
    T* data = sink.release();
    py::capsule owner(data, [](void* p) { std::free(p); });
    return py::array_t<T>({count}, {sizeof(T)}, data, owner);
}

constexpr size_t SMALL_TEXT = 1 << 17;

template <class T>
class Encoder {
    std::vector<std::optional<std::string>> tokens;
    std::vector<std::pair<std::string, uint32_t>> specials;
    Merges merges;
    Pattern pattern;
    std::mutex guard;
    std::vector<std::unique_ptr<State<T>>> idle;

    // A state that starts with the vocabulary in its cache: most words of most texts are tokens.
    std::unique_ptr<State<T>> borrow() {
        {
            std::lock_guard lock(guard);
            if (!idle.empty()) {
                auto state = std::move(idle.back());
                idle.pop_back();
                return state;
            }
        }
        auto state = std::make_unique<State<T>>(merges, pattern, tokens.size());
        Sink<T> nowhere;
        for (auto& token : tokens)
            if (token && token->size() <= SHORT_WORD) state->encode_one(token->data(), token->size(), nowhere);
        return state;
    }

    void give_back(std::unique_ptr<State<T>> state) {
        std::lock_guard lock(guard);
        idle.push_back(std::move(state));
    }

    Specials allowed_of(const std::vector<size_t>& allowed) const {
        Specials found;
        for (size_t i : allowed) found.add(specials.at(i).first, specials[i].second);
        found.finish();
        return found;
    }

    static void encode(State<T>& state, const Specials& allowed, const char* text, size_t length, Sink<T>& sink) {
        allowed.split(text, length, [&](const char* p, size_t n) { state.encode(p, n, sink); },
                      [&](uint32_t id) { sink.append(&id, 1); });
    }

    void encode_all(State<T>& state, const std::vector<size_t>& allowed, const char* text, size_t length, Sink<T>& sink) {
        if (allowed.empty()) {
            py::gil_scoped_release release;
            return state.encode(text, length, sink);
        }
        Specials special = allowed_of(allowed);
        py::gil_scoped_release release;
        encode(state, special, text, length, sink);
    }

public:
    Encoder(Ids byte_ids, Ids left, Ids right, Ids made, std::vector<std::optional<std::string>> tokens,
            std::vector<std::pair<std::string, uint32_t>> specials, const std::string& pattern)
        : tokens(std::move(tokens)), specials(std::move(specials)),
          merges(byte_ids.data(), left.data(), right.data(), made.data(), size_t(left.size())),
          pattern(pattern_named(pattern)) {
        if (this->tokens.size() >= (1u << ID_BITS)) throw py::value_error("more than 2^21 tokens");
        give_back(borrow());
    }

    py::array_t<T> encode_text(py::str text, const std::vector<size_t>& allowed) {
        auto [p, n] = utf8(text);
        auto state = borrow();
        if (n <= SMALL_TEXT) {                    // into the thread's own buffer, then into an array of the right size
            Sink<T>& sink = state->scratch;
            sink.count = 0;
            encode_all(*state, allowed, p, n, sink);
            py::array_t<T> ids(py::ssize_t(sink.count));
            if (sink.count) memcpy(ids.mutable_data(), sink.data, sink.count * sizeof(T));
            give_back(std::move(state));
            return ids;
        }
        Sink<T> sink;
        sink.reserve(n / 3);
        encode_all(*state, allowed, p, n, sink);
        give_back(std::move(state));
        return as_array(sink);
    }

    // All texts one after the other, and where each begins: (ids, (n + 1,) int64).
    py::tuple encode_batch(const py::list& list, const std::vector<size_t>& allowed, size_t threads) {
        Texts texts = utf8_of_all(list);
        Specials special = allowed_of(allowed);
        py::array_t<int64_t> offsets(texts.size() + 1);
        int64_t* ends = offsets.mutable_data();
        Sink<T> all;
        {
            py::gil_scoped_release release;
            std::vector<size_t> parts = cut_evenly(texts, threads);
            std::vector<Sink<T>> sinks(parts.size() - 1);
            std::vector<std::unique_ptr<State<T>>> states(threads);
            parallel(sinks.size(), threads, [&](size_t thread, size_t part) {
                if (!states[thread]) states[thread] = borrow();
                for (size_t i = parts[part]; i < parts[part + 1]; i++) {
                    encode(*states[thread], special, texts[i].first, texts[i].second, sinks[part]);
                    ends[i + 1] = int64_t(sinks[part].count);
                }
            });
            for (auto& state : states)
                if (state) give_back(std::move(state));
            join(sinks, parts, ends, all);
        }
        return py::make_tuple(as_array(all), offsets);
    }

    py::array_t<T> encode_words(const py::list& list) {
        Texts words = utf8_of_all(list);
        Sink<T> sink;
        auto state = borrow();
        for (auto [p, n] : words) state->encode_one(p, n, sink);
        give_back(std::move(state));
        return as_array(sink);
    }

    py::bytes decode(py::array_t<int64_t, py::array::c_style> ids) const {
        const int64_t* id = ids.data();
        size_t total = 0;
        for (py::ssize_t i = 0; i < ids.size(); i++) {
            if (id[i] < 0 || size_t(id[i]) >= tokens.size() || !tokens[id[i]])
                throw py::value_error("id " + std::to_string(id[i]) + " is not in the vocabulary of " +
                                      std::to_string(tokens.size()));
            total += tokens[id[i]]->size();
        }
        PyObject* bytes = PyBytes_FromStringAndSize(nullptr, Py_ssize_t(total));
        if (!bytes) throw py::error_already_set();
        char* out = PyBytes_AS_STRING(bytes);
        for (py::ssize_t i = 0; i < ids.size(); i++) {
            const std::string& token = *tokens[id[i]];
            memcpy(out, token.data(), token.size());
            out += token.size();
        }
        return py::reinterpret_steal<py::bytes>(bytes);
    }

    size_t cache_bytes() {
        std::lock_guard lock(guard);
        size_t total = 0;
        for (auto& state : idle) total += state->cache.bytes();
        return total;
    }

private:
    // Bounds of parts of about equal bytes, some for each thread.
    static std::vector<size_t> cut_evenly(const Texts& texts, size_t threads) {
        size_t total = 0, parts = threads > 1 ? 8 * threads : 1, seen = 0;
        for (auto [p, n] : texts) total += n;
        std::vector<size_t> bounds{0};
        for (size_t i = 0; i < texts.size(); i++) {
            seen += texts[i].second;
            if (seen * parts >= total * bounds.size() && i + 1 < texts.size()) bounds.push_back(i + 1);
        }
        bounds.push_back(texts.size());
        return bounds;
    }

    static void join(std::vector<Sink<T>>& sinks, const std::vector<size_t>& parts, int64_t* ends, Sink<T>& all) {
        ends[0] = 0;
        if (sinks.size() == 1) {
            std::swap(all.data, sinks[0].data), std::swap(all.count, sinks[0].count);
            return;
        }
        size_t total = 0;
        for (Sink<T>& sink : sinks) total += sink.count;
        all.reserve(total);
        for (size_t part = 0; part < sinks.size(); part++) {
            for (size_t i = parts[part]; i < parts[part + 1]; i++) ends[i + 1] += int64_t(all.count);
            all.append(sinks[part].data, sinks[part].count);
        }
    }
};

// Counts the words of texts, thread by thread, and learns merges from the sum.
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
                for (size_t j = 0; j < n; j += BATCH)
                    counts[thread]->add_words(base, starts + j, std::min(BATCH, n - j));
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

static py::array_t<int64_t> word_starts(py::str text, const std::string& pattern) {
    auto [p, n] = utf8(text);
    std::vector<int64_t> found;
    Cutter cutter(pattern_named(pattern));
    int64_t position = 0;
    cutter(p, n, [&](const char*, const uint32_t* starts, size_t count) {
        for (size_t i = 0; i < count; i++) found.push_back(position + starts[i]);
        position += starts[count];
    });
    return py::array_t<int64_t>(found.size(), found.data());
}

template <class T>
static void bind_encoder(py::module_& m, const char* name) {
    py::class_<Encoder<T>>(m, name)
        .def(py::init<Ids, Ids, Ids, Ids, std::vector<std::optional<std::string>>,
                      std::vector<std::pair<std::string, uint32_t>>, const std::string&>(),
             py::arg("byte_ids"), py::arg("left"), py::arg("right"), py::arg("made"), py::arg("tokens"),
             py::arg("specials"), py::arg("pattern"))
        .def("encode", &Encoder<T>::encode_text, py::arg("text"), py::arg("allowed"))
        .def("encode_batch", &Encoder<T>::encode_batch, py::arg("texts"), py::arg("allowed"), py::arg("threads"))
        .def("encode_words", &Encoder<T>::encode_words, py::arg("words"))
        .def("decode", &Encoder<T>::decode, py::arg("ids"))
        .def("cache_bytes", &Encoder<T>::cache_bytes);
}

PYBIND11_MODULE(text, m) {
    m.doc() = "Pre-tokenizer, BPE encoder and trainer";
    m.attr("PATTERNS") = py::make_tuple("gpt2", "cl100k", "o200k");
    m.attr("MAX_TOKENS") = (1 << ID_BITS) - 1;
    m.attr("REGEX_VERSION") = REGEX_VERSION;
    m.attr("UNICODE_VERSION") = UNICODE_VERSION;
    m.def("word_starts", &word_starts, py::arg("text"), py::arg("pattern"));
    bind_encoder<uint16_t>(m, "Encoder16");
    bind_encoder<uint32_t>(m, "Encoder32");
    py::class_<WordCounter>(m, "WordCounter")
        .def(py::init<const std::string&, const std::vector<std::string>&>(), py::arg("pattern"), py::arg("specials"))
        .def("add", &WordCounter::add, py::arg("texts"), py::arg("threads"))
        .def("add_words", &WordCounter::add_words, py::arg("words"))
        .def("words", &WordCounter::words)
        .def("distinct", &WordCounter::distinct)
        .def("learn", &WordCounter::learn, py::arg("byte_ids"), py::arg("n_merges"), py::arg("textbook"),
             py::arg("progress"));
}
