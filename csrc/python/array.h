// What every kernel file shares: the instruction set's name, argument checks, fresh arrays.
//
// The same sources are compiled once per instruction set (see setup.py), each into its own module, so that nothing
// compiled for AVX-512 can be linked into the module that an older CPU loads. Python picks the module at import.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory.h"
#include "simd.h"
#include "threads.h"

namespace py = pybind11;
using std::string;

inline string shape_text(const py::array& a) {
    string text = "(";
    for (py::ssize_t i = 0; i < a.ndim(); i++) text += (i ? ", " : "") + std::to_string(a.shape(i));
    return text + (a.ndim() == 1 ? ",)" : ")");
}

[[noreturn]] inline void fail(const string& message) { throw py::value_error(message); }

// A wanted shape; ANY stands for any size.
constexpr int64_t ANY = -1;
using Shape = std::vector<int64_t>;

inline Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

inline void check_shape(const char* name, const py::array& a, const Shape& wanted) {
    bool same = a.ndim() == int64_t(wanted.size());
    for (size_t i = 0; same && i < wanted.size(); i++) same = wanted[i] == ANY || wanted[i] == a.shape(i);
    if (same) return;
    string text;
    for (int64_t size : wanted) text += (text.empty() ? "" : ", ") + (size == ANY ? string("any") : std::to_string(size));
    fail(string(name) + " must have shape (" + text + "): got " + shape_text(a));
}

inline void check_contiguous(const char* name, const py::array& a) {
    if (!(a.flags() & py::array::c_style))
        fail(string(name) + " must be C-contiguous: pass np.ascontiguousarray(" + name + ")");
}

// A number between addresses, as np.frombuffer makes them: the compiler may take it for granted that there are none.
inline void check_aligned(const char* name, const py::array& a) {
    if (reinterpret_cast<uintptr_t>(a.data()) % a.itemsize())
        fail(string(name) + " must be aligned, each number at a multiple of its size: pass a copy");
}

// The array's data as T, after checking dtype, shape and layout. Never converts, so never hides a copy.
template <class T>
const T* input(const char* name, const py::array& a, const Shape& shape) {
    check_shape(name, a, shape);
    if (!py::isinstance<py::array_t<T>>(a))
        fail(string(name) + " must have dtype " + string(py::str(py::dtype::of<T>())) + ": got " +
             string(py::str(a.dtype())));
    check_contiguous(name, a);
    check_aligned(name, a);
    return static_cast<const T*>(a.data());
}

// An array that the forward left for the backward. Its dtype and shape are checked by `input` like an argument's: a cache
// may come from another backend's forward, whose numbers are of another kind.
inline py::array cached(const py::tuple& cache, size_t i) {
    if (i >= cache.size() || !py::isinstance<py::array>(cache[i]))
        fail("cache must be what this op's forward returned: it has no array at " + std::to_string(i));
    return py::reinterpret_borrow<py::array>(cache[i]);
}

template <class T>
T* in_place(const char* name, py::array& a, const Shape& shape) {
    input<T>(name, a, shape);
    if (!a.writeable()) fail(string(name) + " must be writeable");
    return static_cast<T*>(a.mutable_data());
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool SANITIZED = true;       // memory used again would hide reads beyond the end and after the end of life
#else
constexpr bool SANITIZED = false;
#endif

// The gradient of a parameter: what is returned, and where to write it; None and null if nobody wants it.
template <class T>
struct Gradient {
    py::object array;
    T* data;
};

// A gradient in the array that a backward is asked to add to, checked.
template <class T>
Gradient<T> added_to(const py::object& into, const Shape& shape) {
    if (into.is_none()) return {into, nullptr};
    if (!py::isinstance<py::array>(into)) fail("into must hold arrays to add to, or None");
    py::array array = py::reinterpret_borrow<py::array>(into);
    return {array, in_place<T>("into", array, shape)};
}

// A new array for a result, its contents undefined. Large ones live in memory that earlier results have left.
template <class T>
py::array_t<T> fresh(const Shape& shape) {
    int64_t bytes = sizeof(T);
    for (int64_t size : shape) bytes *= size;
    if (bytes < (1 << 16) || SANITIZED) return py::array_t<T>(shape);
    T* data = static_cast<T*>(arena().take(bytes));
    return py::array_t<T>(shape, data, py::capsule(data, [](void* p) { arena().give(p); }));
}

// The gradients of parameters: in the arrays of `into`, a tuple, to add to; or in new ones, if it is None.
template <class T>
std::vector<Gradient<T>> added_to_all(const py::object& into, const std::vector<Shape>& shapes,
                                         py::array_t<T> (*make)(const Shape&) = &fresh<T>) {
    if (!into.is_none() && (!py::isinstance<py::tuple>(into) || py::len(into) != shapes.size()))
        fail("into must be a tuple of " + std::to_string(shapes.size()) + " arrays");
    std::vector<Gradient<T>> gradients;
    for (size_t i = 0; i < shapes.size(); i++) {
        if (!into.is_none()) gradients.push_back(added_to<T>(into[py::int_(i)], shapes[i]));
        else {
            auto array = make(shapes[i]);
            gradients.push_back({array, array.mutable_data()});
        }
    }
    return gradients;
}

inline int64_t last(const char* name, const py::array& a) {
    if (a.ndim() < 1) fail(string(name) + " must have at least one axis");
    return a.shape(a.ndim() - 1);
}

// Call f with a float or a double, as the dtype of the array that decides says.
template <class F>
auto by_dtype(const char* name, const py::array& a, F f) {
    if (py::isinstance<py::array_t<float>>(a)) return f(float());
    if (py::isinstance<py::array_t<double>>(a)) return f(double());
    fail(string(name) + " must be float32 or float64: got " + string(py::str(a.dtype())));
}
