// Encoder16 and Encoder32: a vocabulary that encodes and decodes, for Python (minillm/tokenizer/fast.py).
#pragma once

#include <memory>
#include <optional>

#include "encode.cpp"
#include "parallel.h"
#include "python.h"
#include "specials.cpp"

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

    void encode_all(State<T>& state, const std::vector<size_t>& allowed, const char* p, size_t n, Sink<T>& sink) {
        if (allowed.empty()) {                    // the common case, without making the table of specials
            py::gil_scoped_release release;
            return state.encode(p, n, sink);
        }
        Specials special = allowed_of(allowed);
        py::gil_scoped_release release;
        encode(state, special, p, n, sink);
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
