// Between Python and C++: a str's bytes, and an array that takes over memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "memory.h"
#include "patterns.cpp"

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
