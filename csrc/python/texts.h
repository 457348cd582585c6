// Between Python and the C++ that reads texts: the bytes of str, and an array that takes over memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "text/parallel.h"
#include "text/pool.h"

namespace minillm {
namespace py = pybind11;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

// A str's UTF-8, which lives as long as the str. Raises UnicodeEncodeError for surrogates, TypeError for no str.
inline std::string_view utf8(py::handle text) {
    Py_ssize_t length;
    const char* p = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
    if (!p) throw py::error_already_set();
    return {p, size_t(length)};
}

// The UTF-8 of a list's texts, which are held: another thread may empty the list in the meantime.
struct HeldTexts : Texts {
    py::tuple held;
    explicit HeldTexts(const py::list& list) : held(list) {
        for (py::handle text : held) push_back(utf8(text));
    }
};

// Gives the ids' memory to a NumPy array.
template <class T>
py::array_t<T> as_array(text::Sink<T>& sink) {
    size_t count = sink.count;
    T* data = sink.release();
    py::capsule owner(data, [](void* p) { std::free(p); });
    return py::array_t<T>({count}, {sizeof(T)}, data, owner);
}
}  // namespace minillm
