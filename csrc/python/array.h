// Python's objects and NumPy's arrays, as bindings see them, and the checks of arguments, written once for all backends.
//
// A binding checks dtype, shape, layout and range, names the argument that is wrong, and hands raw pointers to a kernel.
// pybind11 is not in here: parsing it takes longer than most kernels, so only bindings.cpp, which implements this, does.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

struct _object;  // a PyObject of Python's C interface

namespace minillm {

using std::string;
using Shape = std::vector<int64_t>;
constexpr int64_t ANY = -1;  // in the shape that is wanted: any size

inline string as_text(const string& part) { return part; }
inline string as_text(int64_t number) { return std::to_string(number); }
inline string as_text(double number) { return std::to_string(number); }
string as_text(const Shape& shape);  // as Python prints a tuple; ANY as "any"

// Python's ValueError, its message in parts.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    throw std::invalid_argument((as_text(parts) + ...));
}

// A reference to a Python object: copies share it, and the last one lets it go.
class Object {
    _object* object;

public:
    Object();  // None
    explicit Object(_object* owned) : object(owned) {}
    Object(int64_t);
    Object(double);
    Object(const string&);
    Object(const Shape&);
    Object(const Object&);
    Object(Object&& other) noexcept : object(std::exchange(other.object, nullptr)) {}
    Object& operator=(Object other) noexcept { return std::swap(object, other.object), *this; }
    ~Object();
    _object* get() const { return object; }
    _object* release() { return std::exchange(object, nullptr); }
    bool is_none() const;
};

string as_text(const Object& object);  // str(object)

struct Sequence : Object {
    explicit Sequence(const Object& object) : Object(object) {}
    int64_t size() const;
    Object operator[](int64_t i) const;
};
struct Tuple : Sequence { using Sequence::Sequence; };
struct List : Sequence { using Sequence::Sequence; };

Tuple tuple_of(const Object* items, size_t count);
inline Tuple tuple_of(std::initializer_list<Object> items) { return tuple_of(items.begin(), items.size()); }
inline Tuple tuple_of(const std::vector<Object>& items) { return tuple_of(items.data(), items.size()); }

struct Array : Object {
    Shape shape, strides;  // strides in bytes
    string dtype;  // its name, as NumPy prints it: "float32", "bfloat16", ">f4"
    int64_t itemsize;
    void* data;
    bool contiguous, writeable;
    bool on_device = false;  // a DeviceArray (device_array.h): `data` is for kernels of the GPU alone

    int64_t ndim() const { return shape.size(); }
    int64_t size() const;  // how many numbers
    int64_t rows() const;  // the product of all axes but the last
    Shape with_last(int64_t size) const;  // the shape with another last axis
};

// How a backend with arrays of its own sees one of them as an Array; null where there is no such backend.
inline std::optional<Array> (*array_of_device)(const Object&) = nullptr;

// The object as a T (Object, Tuple, List, Array, int64_t, uint64_t, double, bool, string: also of bytes, Shape), or nothing
// if it is none. string_view: a str's UTF-8, which lives as long as the str; Python's UnicodeEncodeError for surrogates.
template <class T>
std::optional<T> to(const Object& object);

// A new array, or one to add to, and where to write it: null if nobody wants it.
template <class T>
struct Result : Object {
    T* data;
    Result(Object array, T* data) : Object(std::move(array)), data(data) {}
    operator T*() const { return data; }
};

// NumPy's name of T. A backend with types of its own specialises it.
template <class T>
inline const string DTYPE = (std::is_floating_point_v<T> ? "float"
                             : std::is_signed_v<T>       ? "int"
                                                         : "uint") +
                            std::to_string(8 * sizeof(T));

// ---- arguments ----

// The argument as a T, or Python's TypeError.
[[noreturn]] void fail_type(const string& name, const Object& value);
template <class T>
T argument(const Object& value, const string& name) {
    if (auto converted = to<T>(value)) return *std::move(converted);
    fail_type(name, value);
}

void check_shape(const char* name, const Array& a, const Shape& wanted);
void check_dtype(const char* name, const Array& a, const string& wanted);
void check_contiguous(const char* name, const Array& a);
void check_aligned(const char* name, const Array& a);  // compilers take it for granted
void check_on_host(const char* name, const Array& a);

// The array's data as T, after checking dtype, shape and layout. Never converts, so never hides a copy.
template <class T>
const T* input(const char* name, const Array& a, const Shape& shape) {
    check_shape(name, a, shape);
    check_dtype(name, a, DTYPE<T>);
    check_contiguous(name, a);
    check_aligned(name, a);
    check_on_host(name, a);
    return static_cast<const T*>(a.data);
}

// The same to write to.
template <class T>
T* in_place(const char* name, const Array& a, const Shape& shape) {
    input<T>(name, a, shape);
    if (!a.writeable) fail(name, " must be writeable");
    return static_cast<T*>(a.data);
}

// Item i of what the forward left for the backward. An array's dtype and shape are checked by `input` like an argument's: a
// cache may come from another backend's forward, whose numbers are of another kind.
template <class T = Array>
T cached(const Tuple& cache, int64_t i) {
    auto item = i < cache.size() ? to<T>(cache[i]) : std::nullopt;
    const char* kind = std::is_same_v<T, Array> ? "array" : "such number";
    if (!item) fail("cache must be what this op's forward returned: it has no ", kind, " at ", i);
    return *std::move(item);
}

// A copy of token ids as int64, after checking that they are integers in [0, size), or ignore_index. Any integer dtype will
// do, and another thread may write to the caller's array: ids are few beside the numbers that they select.
Result<const int64_t> ids(const char* name, const Array& a, const Shape& shape, int64_t size,
                          const int64_t* ignore_index = nullptr);

int64_t last(const char* name, const Array& a);  // the size of the last axis

// Calls f with a zero of the type that a dtype names.
template <class F>
auto by_dtype(const char* name, const string& dtype, F f) {
    if (dtype == "float32") return f(float());
    if (dtype == "float64") return f(double());
    fail(name, " must be float32 or float64: got ", dtype);
}
template <class F>
auto by_dtype(const char* name, const Array& a, F f) {
    return by_dtype(name, a.dtype, f);
}

// ---- results ----

// A new array: its contents undefined, in memory that earlier results have left (cpu/memory/arena.h) if it is large; or
// zeros on pages of the system that nobody has touched, for what is written in a few places.
std::pair<Object, void*> new_array(const string& dtype, int64_t itemsize, const Shape& shape, bool zeros = false);

// Numbers in the results that this thread has made since its last kernel: with its place in the source, the kind of call.
inline thread_local size_t made = 0;

template <class T>
Result<T> fresh(const Shape& shape, bool zeros = false) {
    auto [array, data] = new_array(DTYPE<T>, sizeof(T), shape, zeros);
    size_t numbers = 1;
    for (int64_t n : shape) numbers *= size_t(n);
    made += numbers;
    return {array, static_cast<T*>(data)};
}

// An array that takes over memory, and gives it back by `release` when nobody needs it any more.
Object array_of_memory(const string& dtype, const Shape& shape, void* data, void (*release)(void*));

std::pair<Object, char*> new_bytes(int64_t size);

// An object of C++ that Python holds as a handle and hands back; null if the handle is of another type.
Object new_handle(void* held, const char* kind, void (*release)(void*));
void* held_by(const Object& handle, const char* kind);
template <class T>
Object handle_of(T* made) {
    return new_handle(made, typeid(T).name(), [](void* held) { delete static_cast<T*>(held); });
}
template <class T>
T* held(const Object& handle) {
    return static_cast<T*>(held_by(handle, typeid(T).name()));
}

// The gradients of parameters: in the arrays of `into`, a tuple, to add to; or in new ones, if it is None.
template <class T>
std::vector<Result<T>> gradients(const Object& into, const std::vector<Shape>& shapes, bool zeros = false) {
    std::vector<Result<T>> results;
    auto arrays = into.is_none() ? std::nullopt : to<Tuple>(into);
    if (!into.is_none() && (!arrays || arrays->size() != int64_t(shapes.size())))
        fail("into must be a tuple of ", int64_t(shapes.size()), " arrays");
    for (size_t i = 0; i < shapes.size(); i++) {
        Object wanted = arrays ? (*arrays)[i] : Object();
        auto array = to<Array>(wanted);
        if (!wanted.is_none() && !array) fail("into must hold arrays to add to, or None");
        if (!arrays) results.push_back(fresh<T>(shapes[i], zeros));
        else results.push_back({wanted, array ? in_place<T>("into", *array, shapes[i]) : nullptr});
    }
    return results;
}

// What else happens before and after a kind of call: the kernels of the CPU set it (cpu/isa/paced.h).
struct AroundKernels {
    void (*before)(const void* kind) = nullptr;
    void (*after)(const void* kind) = nullptr;
};
inline AroundKernels around_kernels;

// Runs f, which touches no Python object, while other threads may run Python.
class WithoutGil {
    void* state;
    const void* kind;

public:
    explicit WithoutGil(const void* kind);
    ~WithoutGil();
    WithoutGil(const WithoutGil&) = delete;
};
template <class F>
auto without_gil(F f) {
    static const char kind = 0;  // one for each f in the source
    WithoutGil released(&kind + std::exchange(made, 0));
    return f();
}

// From within `without_gil`: Ctrl-C's exception, if there was one, and f(done, total) of Python, if f is not None.
void report(const Object& f, int64_t done, int64_t total);

}  // namespace minillm
