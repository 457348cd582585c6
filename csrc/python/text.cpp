// The extension minillm._cpp.text: pre-tokenizer, encoder and trainer for Python (minillm/tokenizer/fast.py).
//
// To read it in order: patterns.cpp and pretokenize.cpp cut text into words; merge.cpp, cache.cpp and encode.cpp make
// ids of them; count.cpp and train.cpp learn a vocabulary. encoder.cpp and counter.cpp are what Python sees.
//
// It is built once, unlike the kernels: text is bytes, branches and cache lines, and SSE2, which every x86-64 has, does
// all the vector work there is (measured: classifying bytes takes about 5% of encoding, and only Chunk::cut gains from
// newer instructions). So it needs no copy for each instruction set, and a change here compiles no kernel again.
#include "counter.cpp"
#include "encoder.cpp"

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

PYBIND11_MODULE(text, m) {
    m.doc() = "Pre-tokenizer, BPE encoder and trainer";
    m.attr("PATTERNS") = py::make_tuple("gpt2", "cl100k", "o200k");
    m.attr("MAX_TOKENS") = (1 << ID_BITS) - 1;
    m.attr("REGEX_VERSION") = REGEX_VERSION;
    m.attr("UNICODE_VERSION") = UNICODE_VERSION;
    m.def("word_starts", &word_starts, py::arg("text"), py::arg("pattern"));
    bind_encoder<uint16_t>(m, "Encoder16");
    bind_encoder<uint32_t>(m, "Encoder32");
    bind_counter(m);
}
