// array.h and register.h, by pybind11.
#include <pybind11/eval.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>

#include "cpu/memory/arena.h"
#include "register.h"

namespace py = pybind11;

namespace minillm {

// ---- objects ----

namespace {

py::handle handle(const Object& object) { return py::handle(object.get()); }
Object object(py::object&& o) { return Object(o.release().ptr()); }
Object borrowed(py::handle h) { return Object(h.inc_ref().ptr()); }

// NumPy says a dtype's name in Python, which takes microseconds, so the usual ones are known here.
string dtype_name(const py::dtype& dtype) {
    const char *kinds[] = {"float", "int", "uint"}, *bits[] = {"", "8", "16", "", "32", "", "", "", "64"};
    const char kind = dtype.kind(), order = dtype.byteorder();
    const int64_t i = kind == 'f' ? 0 : kind == 'i' ? 1 : kind == 'u' ? 2 : 3, bytes = dtype.itemsize();
    if (i < 3 && bytes <= 8 && (order == '=' || order == '|')) return string(kinds[i]) + bits[bytes];
    return py::str(dtype);
}

// A matrix multiplies otherwise, and of a masked array no kernel knows the mask.
bool is_strange(py::handle array) {
    if (Py_TYPE(array.ptr()) == py::detail::npy_api::get().PyArray_Type_) return false;
    auto numpy = py::module_::import("numpy");
    return py::isinstance(array, numpy.attr("matrix")) || py::isinstance(array, numpy.attr("ma").attr("MaskedArray"));
}

Array array_of(const py::array& a) {
    return {borrowed(a),
            Shape(a.shape(), a.shape() + a.ndim()),
            Shape(a.strides(), a.strides() + a.ndim()),
            dtype_name(a.dtype()),
            a.itemsize(),
            const_cast<void*>(a.data()),
            bool(a.flags() & py::array::c_style),
            a.writeable()};
}

}  // namespace

Object::Object() : object(py::none().release().ptr()) {}
Object::Object(int64_t number) : object(py::int_(number).release().ptr()) {}
Object::Object(double number) : object(py::float_(number).release().ptr()) {}
Object::Object(const string& text) : object(py::str(text).release().ptr()) {}
Object::Object(const Shape& shape) : object(py::cast(shape).release().ptr()) {}
Object::Object(const Object& other) : object(py::handle(other.object).inc_ref().ptr()) {}
Object::~Object() { py::handle(object).dec_ref(); }
bool Object::is_none() const { return py::handle(object).is_none(); }

string as_text(const Object& object) { return py::str(handle(object)); }

string as_text(const Shape& shape) {
    string inside;
    for (int64_t size : shape) inside += (inside.empty() ? "" : ", ") + (size == ANY ? "any" : std::to_string(size));
    return "(" + inside + (shape.size() == 1 ? ",)" : ")");
}

int64_t Sequence::size() const { return PySequence_Size(get()); }
Object Sequence::operator[](int64_t i) const { return Object(PySequence_GetItem(get(), i)); }

Tuple tuple_of(const Object* items, size_t count) {
    py::tuple tuple(count);
    for (size_t i = 0; i < count; i++) tuple[i] = handle(items[i]);
    return Tuple(object(std::move(tuple)));
}

int64_t Array::size() const {
    int64_t n = 1;
    for (int64_t axis : shape) n *= axis;
    return n;
}
int64_t Array::rows() const {
    int64_t n = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) n *= shape[i];
    return n;
}
Shape Array::with_last(int64_t size) const {
    Shape other = shape;
    other.back() = size;
    return other;
}

template <class T>
std::optional<T> to(const Object& object) {
    py::detail::make_caster<T> caster;
    try {
        if (!caster.load(handle(object), true)) return std::nullopt;
    } catch (py::error_already_set&) {  // a sequence without a length: an array of no axis
        return std::nullopt;
    }
    return py::detail::cast_op<T>(caster);
}
template <>
std::optional<Object> to(const Object& object) {
    return object;
}
template <>
std::optional<Tuple> to(const Object& object) {
    return PyTuple_Check(object.get()) ? std::optional(Tuple(object)) : std::nullopt;
}
template <>
std::optional<List> to(const Object& object) {
    return PyList_Check(object.get()) ? std::optional(List(object)) : std::nullopt;
}
template <>
std::optional<Array> to(const Object& object) {
    if (!py::isinstance<py::array>(handle(object))) return array_of_device ? array_of_device(object) : std::nullopt;
    if (is_strange(handle(object))) return std::nullopt;
    return array_of(py::reinterpret_borrow<py::array>(handle(object)));
}

template <>
std::optional<std::string_view> to(const Object& object) {
    if (!PyUnicode_Check(object.get())) return std::nullopt;
    Py_ssize_t length;
    const char* text = PyUnicode_AsUTF8AndSize(object.get(), &length);
    if (!text) throw py::error_already_set();
    return std::string_view(text, size_t(length));
}

// An integer is what Python takes as an index: no float, whatever its value, and none of NumPy's.
template <class T>
std::optional<T> integer(const Object& object) {
    auto index = py::reinterpret_steal<py::object>(PyNumber_Index(object.get()));
    py::detail::make_caster<T> caster;
    if (index && caster.load(index, false)) return py::detail::cast_op<T>(caster);
    PyErr_Clear();
    return std::nullopt;
}
template <>
std::optional<int64_t> to(const Object& object) {
    return integer<int64_t>(object);
}
template <>
std::optional<uint64_t> to(const Object& object) {
    return integer<uint64_t>(object);
}
template <>
std::optional<Shape> to(const Object& object) {
    const PyObject* o = object.get();
    if (!PySequence_Check(object.get()) || PyUnicode_Check(o) || PyBytes_Check(o)) return std::nullopt;
    Sequence sequence(object);
    int64_t size = sequence.size();
    if (size < 0) return PyErr_Clear(), std::nullopt;
    Shape found;
    for (int64_t i = 0; i < size; i++) {
        auto one = to<int64_t>(sequence[i]);
        if (!one) return std::nullopt;
        found.push_back(*one);
    }
    return found;
}

template std::optional<double> to(const Object&);
template std::optional<bool> to(const Object&);
template std::optional<string> to(const Object&);

// ---- arguments ----

void fail_type(const string& name, const Object& value) {
    const char* type = Py_TYPE(value.get())->tp_name;
    if (name == "cache") fail("cache must be what this op's forward returned, a tuple: got ", string(type));
    throw py::type_error(name + " cannot be of type " + type);
}

void check_shape(const char* name, const Array& a, const Shape& wanted) {
    bool same = a.shape.size() == wanted.size();
    for (size_t i = 0; same && i < wanted.size(); i++) same = wanted[i] == ANY || wanted[i] == a.shape[i];
    if (!same) fail(name, " must have shape ", wanted, ": got ", a.shape);
}

void check_dtype(const char* name, const Array& a, const string& wanted) {
    if (a.dtype != wanted) fail(name, " must have dtype ", wanted, ": got ", a.dtype);
}

void check_contiguous(const char* name, const Array& a) {
    if (!a.contiguous && a.on_device) fail(name, " must be C-contiguous: pass ", name, ".copy()");
    if (!a.contiguous) fail(name, " must be C-contiguous: pass np.ascontiguousarray(", name, ")");
}

void check_on_host(const char* name, const Array& a) {
    if (a.on_device) fail(name, " must be an array of NumPy: got one on the device");
}

// A number between addresses, as np.frombuffer makes them.
void check_aligned(const char* name, const Array& a) {
    if (reinterpret_cast<uintptr_t>(a.data) % a.itemsize)
        fail(name, " must be aligned, each number at a multiple of its size: pass a copy");
}

int64_t last(const char* name, const Array& a) {
    if (a.ndim() < 1) fail(name, " must have at least one axis");
    return a.shape.back();
}

Result<const int64_t> ids(const char* name, const Array& a, const Shape& shape, int64_t size,
                          const int64_t* ignore_index) {
    check_shape(name, a, shape);
    check_on_host(name, a);
    auto given = py::reinterpret_borrow<py::array>(handle(a));
    const char kind = given.dtype().kind();
    if (kind != 'i' && kind != 'u') fail(name, " must be an array of integers: got ", a.dtype);
    constexpr int COPY = 0x20;  // NPY_ARRAY_ENSURECOPY, which pybind11 does not name
    auto own = py::array_t<int64_t, py::array::c_style | py::array::forcecast | COPY>(given);
    const int64_t* p = own.data();
    for (int64_t i = 0; i < own.size(); i++) {
        bool ignored = ignore_index && p[i] == *ignore_index && (kind == 'i' || p[i] >= 0);  // 2^64 - 1 is not -1
        if ((p[i] < 0 || p[i] >= size) && !ignored)
            fail(name, " must be in [0, ", size, "): got ",
                 kind == 'i' ? std::to_string(p[i]) : std::to_string(uint64_t(p[i])), " at flat index ", i);
    }
    return {object(std::move(own)), p};
}

// ---- results ----

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool SANITIZED = true;       // memory used again would hide reads beyond the end and after the end of life
#else
constexpr bool SANITIZED = false;
#endif

const py::dtype& dtype_named(const string& name) {
    static auto& known = *new std::map<string, py::dtype>;            // NumPy takes a microsecond to find one
    auto place = known.find(name);
    if (place == known.end()) place = known.emplace(name, py::dtype(name)).first;
    return place->second;
}

}  // namespace

std::pair<Object, void*> new_array(const string& dtype, int64_t itemsize, const Shape& shape, bool zeros) {
    int64_t bytes = itemsize;
    for (int64_t size : shape) bytes *= size;
    py::array array;
    if (zeros) array = py::module_::import("numpy").attr("zeros")(shape, dtype_named(dtype));
    else if (bytes < (1 << 16) || SANITIZED) array = py::array(dtype_named(dtype), shape);
    else {
        void* data = arena().take(bytes);
        return {array_of_memory(dtype, shape, data, [](void* p) { arena().give(p); }), data};
    }
    void* data = array.mutable_data();
    return {object(std::move(array)), data};
}

Object array_of_memory(const string& dtype, const Shape& shape, void* data, void (*release)(void*)) {
    return object(py::array(dtype_named(dtype), shape, data, py::capsule(data, release)));
}

std::pair<Object, char*> new_bytes(int64_t size) {
    Object bytes(PyBytes_FromStringAndSize(nullptr, size));
    if (!bytes.get()) throw py::error_already_set();
    return {bytes, PyBytes_AS_STRING(bytes.get())};
}

Object new_handle(void* held, const char* kind, void (*release)(void*)) {
    py::capsule handle(held, kind, [](PyObject* capsule) {
        auto give_back = reinterpret_cast<void (*)(void*)>(PyCapsule_GetContext(capsule));
        give_back(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
    });
    PyCapsule_SetContext(handle.ptr(), reinterpret_cast<void*>(release));
    return object(std::move(handle));
}

void* held_by(const Object& handle, const char* kind) {
    return PyCapsule_IsValid(handle.get(), kind) ? PyCapsule_GetPointer(handle.get(), kind) : nullptr;
}

WithoutGil::WithoutGil(const void* kind_) : state(PyEval_SaveThread()), kind(kind_) {
    if (around_kernels.before) around_kernels.before(kind);
}
WithoutGil::~WithoutGil() {
    if (around_kernels.after) around_kernels.after(kind);
    PyEval_RestoreThread(static_cast<PyThreadState*>(state));
}

void report(const Object& f, int64_t done, int64_t total) {
    py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals()) throw py::error_already_set();
    if (!f.is_none()) handle(f)(done, total);
}

// ---- functions ----

Registry& registry() {
    static auto& all = *new Registry;                      // never taken apart, since Python ends before it
    return all;
}

namespace {

// Where the first parameter of a signature's rest ends: at the comma or parenthesis that none in it has opened.
size_t end_of_parameter(const string& rest) {
    size_t end = rest.find_first_of("(,)");
    if (end == string::npos || rest[end] != '(') return end;
    size_t inner = rest.find(')', end);
    return rest.find_first_of(",)", inner + 1);
}

// A function as Python calls it: its parameters' names and defaults come from its signature.
class Callable {
    const Function& function;
    string name, documentation;                            // which inspect.signature reads
    PyMethodDef definition;
    std::vector<string> names;
    std::vector<Object> defaults;                         // a default is null where there is none

public:
    explicit Callable(const Function& f)
        : function(f), name(f.signature.substr(0, f.signature.find('('))), documentation(f.signature + "\n--\n\n") {
        string rest = f.signature.substr(name.size() + 1);
        for (size_t end; (end = end_of_parameter(rest)) > 0 && end != string::npos;
             rest = rest.substr(std::min(rest.find_first_not_of(", ", end), rest.size()))) {
            string parameter = rest.substr(0, end);
            size_t equals = std::min(parameter.find('='), parameter.size());
            names.push_back(parameter.substr(0, equals));
            defaults.push_back(equals < parameter.size() ? object(py::eval(parameter.substr(equals + 1)))
                                                         : Object(nullptr));
        }
        if (names.size() != f.arity) throw py::import_error(f.signature + ": not the parameters of its C++ function");
    }

    // A builtin function of Python, whose `self` is the Callable.
    static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t given, PyObject* keywords) {
        auto callable = static_cast<const Callable*>(PyCapsule_GetPointer(self, nullptr));
        try {
            return (*callable)(args, given, keywords).release();
        } catch (py::error_already_set& error) {
            error.restore();
        } catch (const py::builtin_exception& error) {
            error.set_error();
        } catch (const std::logic_error& error) {
            PyErr_SetString(PyExc_ValueError, error.what());
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
        } catch (const std::exception& error) {
            PyErr_SetString(PyExc_RuntimeError, error.what());
        }
        return nullptr;
    }

    Object operator()(PyObject* const* args, size_t given, PyObject* by_name) const {
        std::vector<Object> values = defaults;
        if (given > names.size()) wrong("takes at most " + std::to_string(names.size()) + " arguments");
        for (size_t i = 0; i < given; i++) values[i] = borrowed(args[i]);
        for (Py_ssize_t k = 0; by_name && k < PyTuple_GET_SIZE(by_name); k++) {
            string keyword = py::str(py::handle(PyTuple_GET_ITEM(by_name, k)));
            size_t i = std::find(names.begin(), names.end(), keyword) - names.begin();
            if (i == names.size() || i < given) wrong("takes no keyword " + keyword + " here");
            values[i] = borrowed(args[given + k]);
        }
        for (size_t i = 0; i < names.size(); i++)
            if (!values[i].get()) wrong("needs " + names[i]);
        return function.call(function.function, values.data(), names.data());
    }

    void add_to(const py::module_& m) {
        definition = {name.c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)),
                      METH_FASTCALL | METH_KEYWORDS, documentation.c_str()};
        py::capsule self(this);
        PyObject* made = PyCFunction_NewEx(&definition, self.ptr(), py::str(m.attr("__name__")).ptr());
        m.attr(name.c_str()) = py::reinterpret_steal<py::object>(made);
    }

private:
    [[noreturn]] void wrong(const string& problem) const { throw py::type_error(name + "() " + problem); }
};

}  // namespace

void add_functions(_object* module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    for (const Function& f : registry().functions) (new Callable(f))->add_to(m);  // for the life of the process
    for (const auto& [name, value] : registry().constants) m.attr(name.c_str()) = handle(value);
}

_object* new_module(const char* name, const char* documentation) {
    static py::module_::module_def definition;
    py::detail::get_internals();
    try {
        auto m = py::module_::create_extension_module(name, documentation, &definition);
        add_functions(m.ptr());
        return m.release().ptr();
    }
    PYBIND11_CATCH_INIT_EXCEPTIONS
    return nullptr;
}

}  // namespace minillm
