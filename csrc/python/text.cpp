// The extension minillm._cpp.text: pre-tokenizer, encoder and trainer for Python (minillm/tokenizer/fast.py).
//
// To read it in order (csrc/text): patterns.h and pretokenize.h cut text into words; merge.h, cache.h and encode.h
// make ids of them, encoder.h with several threads; count.h and train.h learn a vocabulary, counter.h with several
// threads.
//
// It is built once, unlike the kernels: text is bytes, branches and cache lines, and SSE2, which every x86-64 has,
// does all the vector work there is (measured: classifying bytes takes about 5% of encoding, and only Chunk::cut gains
// from newer instructions). So it needs no copy for each instruction set, and a change here compiles no kernel again.
#include "python/texts.h"
#include "text/counter.h"
#include "text/encoder.h"
#include "text/pretokenize.h"

namespace minillm::text {
namespace {

using Ids = Array<uint32_t>;
using Allowed = std::vector<size_t>;
constexpr size_t SMALL_TEXT = 1 << 17;

py::array_t<int64_t> word_starts(py::str str, const std::string& pattern) {
    std::string_view text = utf8(str);
    std::vector<int64_t> found;
    Cutter cutter(pattern_named(pattern));
    int64_t position = 0;
    cutter(text.data(), text.size(), [&](const char*, const uint32_t* starts, size_t count) {
        for (size_t i = 0; i < count; i++) found.push_back(position + starts[i]);
        position += starts[count];
    });
    return py::array_t<int64_t>(found.size(), found.data());
}

template <class T>
auto make_encoder(Ids byte_ids, Ids left, Ids right, Ids made, std::vector<std::optional<std::string>> tokens,
                  std::vector<std::pair<std::string, uint32_t>> specials, const std::string& pattern) {
    Merges merges(byte_ids.data(), left.data(), right.data(), made.data(), size_t(left.size()));
    return std::make_unique<Encoder<T>>(std::move(merges), std::move(tokens), std::move(specials),
                                        pattern_named(pattern));
}

template <class T>
py::array_t<T> encode(Encoder<T>& encoder, py::str str, const Allowed& allowed) {
    std::string_view text = utf8(str);
    const auto encode_to = [&](Sink<T>& ids) {
        py::gil_scoped_release release;
        encoder.encode(text, allowed, ids);
    };
    if (text.size() > SMALL_TEXT) {
        Sink<T> ids;
        ids.reserve(text.size() / 3);
        encode_to(ids);
        return as_array(ids);
    }
    static thread_local Sink<T> scratch;          // then into an array of the right size
    scratch.count = 0;
    encode_to(scratch);
    py::array_t<T> ids(py::ssize_t(scratch.count));
    if (scratch.count) memcpy(ids.mutable_data(), scratch.data, scratch.count * sizeof(T));
    return ids;
}

// All texts one after the other, and where each begins: (ids, (n + 1,) int64).
template <class T>
py::tuple encode_batch(Encoder<T>& encoder, const py::list& list, const Allowed& allowed, size_t threads) {
    HeldTexts texts(list);
    py::array_t<int64_t> offsets(texts.size() + 1);
    Sink<T> ids;
    int64_t* begins = offsets.mutable_data();
    {
        py::gil_scoped_release release;
        encoder.encode_batch(texts, allowed, threads, ids, begins);
    }
    return py::make_tuple(as_array(ids), offsets);
}

template <class T>
py::array_t<T> encode_words(Encoder<T>& encoder, const py::list& words) {
    Sink<T> ids;
    encoder.encode_words(HeldTexts(words), ids);
    return as_array(ids);
}

template <class T>
py::bytes decode(const Encoder<T>& encoder, Array<int64_t> ids) {
    std::vector<const std::string*> tokens(ids.size());  // each id is read once: another thread may change it
    size_t total = 0;
    for (size_t i = 0; i < tokens.size(); i++) {
        tokens[i] = &encoder.token(ids.data()[i]);
        total += tokens[i]->size();
    }
    py::bytes bytes(nullptr, total);
    char* out = PyBytes_AS_STRING(bytes.ptr());
    for (const std::string* token : tokens) out = std::copy(token->begin(), token->end(), out);
    return bytes;
}

template <class T>
void bind_encoder(py::module_& m, const char* name) {
    py::class_<Encoder<T>>(m, name)
        .def(py::init(&make_encoder<T>), py::arg("byte_ids"), py::arg("left"), py::arg("right"), py::arg("made"),
             py::arg("tokens"), py::arg("specials"), py::arg("pattern"))
        .def("encode", &encode<T>, py::arg("text"), py::arg("allowed"))
        .def("encode_batch", &encode_batch<T>, py::arg("texts"), py::arg("allowed"), py::arg("threads"))
        .def("encode_words", &encode_words<T>, py::arg("words"))
        .def("decode", &decode<T>, py::arg("ids"))
        .def("cache_bytes", &Encoder<T>::cache_bytes);
}

void add(WordCounter& counter, const py::list& list, size_t threads) {
    HeldTexts texts(list);
    py::gil_scoped_release release;
    counter.add(texts, threads);
}

void add_words(WordCounter& counter, const std::vector<std::pair<std::string, uint64_t>>& words) {
    for (auto& [word, count] : words) counter.add_word(word, count);
}

py::dict words(WordCounter& counter) {
    py::dict found;
    counter.total().each([&](const char* word, size_t n, uint64_t count) { found[py::bytes(word, n)] = count; });
    return found;
}

// (n, 2) ids of the merges; `progress(done, total)` now and then.
Ids learn(WordCounter& counter, Ids byte_ids, size_t n_merges, bool textbook, const py::object& progress) {
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    const auto report = [&](size_t done) {
        py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals()) throw py::error_already_set();
        if (!progress.is_none()) progress(done, n_merges);
    };
    {
        py::gil_scoped_release release;
        merges = counter.learn(byte_ids.data(), n_merges, textbook, report);
    }
    Ids result({py::ssize_t(merges.size()), py::ssize_t(2)});
    if (!merges.empty()) memcpy(result.mutable_data(), merges.data(), merges.size() * 8);
    return result;
}

void bind_counter(py::module_& m) {
    py::class_<WordCounter>(m, "WordCounter")
        .def(py::init([](const std::string& pattern, const std::vector<std::string>& specials) {
                 return std::make_unique<WordCounter>(pattern_named(pattern), specials);
             }),
             py::arg("pattern"), py::arg("specials"))
        .def("add", &add, py::arg("texts"), py::arg("threads"))
        .def("add_words", &add_words, py::arg("words"))
        .def("words", &words)
        .def("distinct", [](WordCounter& counter) { return counter.total().size(); })
        .def("learn", &learn, py::arg("byte_ids"), py::arg("n_merges"), py::arg("textbook"), py::arg("progress"));
}

}  // namespace
}  // namespace minillm::text

PYBIND11_MODULE(text, m) {
    namespace py = pybind11;
    using namespace minillm::text;
    m.doc() = "Pre-tokenizer, BPE encoder and trainer";
    m.attr("PATTERNS") = py::make_tuple("gpt2", "cl100k", "o200k");
    m.attr("MAX_TOKENS") = (1 << ID_BITS) - 1;
    m.attr("UNICODE_VERSION") = UNICODE_VERSION;
    m.def("word_starts", &word_starts, py::arg("text"), py::arg("pattern"));
    bind_encoder<uint16_t>(m, "Encoder16");
    bind_encoder<uint32_t>(m, "Encoder32");
    bind_counter(m);
}
