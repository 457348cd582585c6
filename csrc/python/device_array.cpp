// DeviceArray as Python sees it: its views and its arithmetic, and what the module knows of device memory and recordings.
// Numbers come in and go out in device_exchange.cpp.
#include "python/device_array.h"

#include <pybind11/numpy.h>

#include "cuda/ops/arithmetic.h"
#include "python/dlpack.h"

namespace minillm {

// Of all numbers of this shape. ValueError for more than there are addresses, though an empty array may say them.
static int64_t count_of(const Shape& shape) {
    int64_t count = 1, limit = int64_t(1) << 59;
    bool empty = false;
    for (int64_t size : shape) {
        if (size < 0) fail("shape must hold no negative size: got ", shape);
        if (size > limit) fail("shape must be of fewer than 2^59 numbers: got ", shape);
        if (size) count *= size, limit /= size;
        else empty = true;
    }
    return empty ? 0 : count;
}

int64_t DeviceArray::size() const {
    int64_t n = 1;
    for (int64_t axis : shape) n *= axis;
    return n;
}

bool DeviceArray::contiguous() const {
    const Shape straight = c_strides(shape, itemsize);
    for (size_t i = 0; i < shape.size(); i++)
        if (shape[i] != 1 && strides[i] != straight[i]) return size() == 0;
    return true;
}

Shape c_strides(const Shape& shape, int64_t itemsize) {
    Shape strides(shape.size(), itemsize);
    for (int i = int(shape.size()) - 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
    return strides;
}

void check_no_gaps(const DeviceArray& a) {
    if (!a.contiguous()) fail("the array must have no gaps to be taken as a whole");
}

namespace {

// ---- views ----

// An integer, or several.
Shape shape_from(const py::object& given) {
    try {
        if (PyIndex_Check(given.ptr())) return {py::int_(given).cast<int64_t>()};
        return given.cast<Shape>();
    } catch (const py::cast_error&) {
        throw py::type_error("shape must be an integer or a tuple of integers: got " + string(py::repr(given)));
    }
}

// x[index], for integers, slices, ... and None.
DeviceArray view(const DeviceArray& a, const py::object& index) {
    const py::tuple items = py::isinstance<py::tuple>(index) ? py::tuple(index) : py::make_tuple(index);
    int64_t named = 0;
    for (py::handle item : items) named += !item.is_none() && !item.is(py::ellipsis());
    const int64_t rest = int64_t(a.shape.size()) - named;
    if (rest < 0) throw py::index_error("too many indices: the array has " + std::to_string(a.shape.size()) + " axes");
    DeviceArray seen = {a.memory, a.offset, {}, {}, a.dtype, a.itemsize, a.host, a.stream};
    size_t axis = 0;
    const auto keep = [&](int64_t size, int64_t stride) { seen.shape.push_back(size), seen.strides.push_back(stride); };
    const auto keep_axes = [&](int64_t count) {
        for (; count > 0; count--, axis++) keep(a.shape[axis], a.strides[axis]);
    };
    bool dots = false;
    for (py::handle item : items) {
        if (item.is_none()) keep(1, 0);
        else if (item.is(py::ellipsis())) keep_axes(std::exchange(dots, true) ? 0 : rest);
        else if (py::isinstance<py::slice>(item)) {
            py::ssize_t start, stop, step, length;
            if (!py::reinterpret_borrow<py::slice>(item).compute(a.shape[axis], &start, &stop, &step, &length))
                throw py::error_already_set();
            if (length) seen.offset += start * a.strides[axis];
            keep(length, step * a.strides[axis++]);
        } else if (PyIndex_Check(item.ptr()) && !PyBool_Check(item.ptr())) {
            const int64_t given = PyNumber_AsSsize_t(item.ptr(), PyExc_IndexError), size = a.shape[axis];
            if (PyErr_Occurred()) throw py::error_already_set();
            if (given < -size || given >= size)
                throw py::index_error("index " + std::to_string(given) + " is out of bounds for an axis of " +
                                      std::to_string(size));
            seen.offset += (given < 0 ? given + size : given) * a.strides[axis++];
        } else throw py::type_error("an index must be an integer, a slice, ... or None");
    }
    if (!dots) keep_axes(rest);
    return seen;
}

// Of an array without gaps only, so that it is always a view.
DeviceArray reshaped(const DeviceArray& a, const py::args& sizes) {
    const bool together = sizes.size() == 1 && py::isinstance<py::sequence>(sizes[0]);
    Shape shape = shape_from(together ? py::object(sizes[0]) : py::object(sizes));
    int64_t unknown = -1;
    for (size_t i = 0; i < shape.size(); i++)
        if (shape[i] == -1 && unknown < 0) unknown = int64_t(i), shape[i] = 1;
        else if (shape[i] < 0) fail("shape must hold sizes, and -1 at most once");
    const int64_t known = count_of(shape);
    if (unknown >= 0) shape[unknown] = known ? a.size() / known : 0;
    if (count_of(shape) != a.size()) fail("shape must be one for ", a.size(), " numbers: got ", shape);
    if (!a.contiguous()) fail("an array with gaps cannot be reshaped: take its copy()");
    return {a.memory, a.offset, shape, c_strides(shape, a.itemsize), a.dtype, a.itemsize, a.host, a.stream};
}

DeviceArray transposed(const DeviceArray& a) {
    return {a.memory,
            a.offset,
            Shape(a.shape.rbegin(), a.shape.rend()),
            Shape(a.strides.rbegin(), a.strides.rend()),
            a.dtype,
            a.itemsize,
            a.host,
            a.stream};
}

// ---- arithmetic ----

void check_like(const DeviceArray& a, const DeviceArray& b) {
    if (a.shape != b.shape || a.dtype != b.dtype)
        fail("both arrays must have shape ", a.shape, " and dtype ", a.dtype, ": got ", b.shape, " and ", b.dtype);
    check_no_gaps(a);
    check_no_gaps(b);
}

DeviceArray added(const DeviceArray& a, const DeviceArray& b) {
    check_like(a, b);
    DeviceArray sum = empty_device_array(a.dtype, a.shape);
    arithmetic::add(a.dtype, sum.data(), a.data(), b.data(), a.size(), gpu::current_stream());
    return sum;
}

DeviceArray& add_to(DeviceArray& a, const DeviceArray& b) {
    check_like(a, b);
    arithmetic::add(a.dtype, a.data(), a.data(), b.data(), a.size(), gpu::current_stream());
    return a;
}

// x (..., C) times columns (C).
DeviceArray multiplied(const DeviceArray& x, const DeviceArray& columns) {
    const Shape last(x.shape.end() - (x.shape.empty() ? 0 : 1), x.shape.end());
    if (columns.shape != last || columns.dtype != x.dtype)
        fail("the factor must have shape ", last, " and dtype ", x.dtype, ": got ", columns.shape, " and ",
             columns.dtype);
    check_no_gaps(x);
    check_no_gaps(columns);
    DeviceArray out = empty_device_array(x.dtype, x.shape);
    const int64_t C = columns.size();
    arithmetic::multiply_columns(x.dtype, out.data(), x.data(), columns.data(), x.size(), C, gpu::current_stream());
    return out;
}

void fill(DeviceArray& a, double value) {
    check_no_gaps(a);
    arithmetic::fill(a.dtype, a.data(), value, a.size(), gpu::current_stream());
}

void average(DeviceArray& mean, const DeviceArray& x, double rate) {
    check_like(mean, x);
    arithmetic::average(mean.dtype, mean.data(), x.data(), rate, mean.size(), gpu::current_stream());
}

double sum(const DeviceArray& a, const py::object&) {
    check_no_gaps(a);
    return arithmetic::sum(a.dtype, a.data(), a.size(), gpu::current_stream());
}

void clear(DeviceArray& a) {
    check_no_gaps(a);
    if (a.size()) gpu::clear(a.data(), a.size() * a.itemsize, gpu::current_stream());
    remember(a, {});
}

// The name that dtype="float32", np.float32 or np.dtype(np.float32) mean.
string named_dtype(const py::object& dtype) {
    const string name = py::str(dtype);
    return name == "bfloat16" ? name : string(py::str(py::dtype::from_args(dtype)));
}

DeviceArray zeros(const py::object& shape, const py::object& dtype) {
    gpu::check_driver();
    DeviceArray made = empty_device_array(named_dtype(dtype), shape_from(shape));
    clear(made);
    return made;
}

string description(const DeviceArray& a) {
    return "DeviceArray(shape=" + as_text(a.shape) + ", dtype=" + a.dtype +
           (a.contiguous() ? "" : ", strides=" + as_text(a.strides)) + ")";
}

std::optional<Array> as_array(const Object& o) {
    const DeviceArray* a = device_array(o);
    if (!a) return std::nullopt;
    return Array{o, a->shape, a->strides, a->dtype, a->itemsize, a->data(), a->contiguous(), true, true};
}

py::dict memory_counts() {
    const gpu::ArenaCounts counts = gpu::arena_counts();
    return py::dict(py::arg("allocations") = counts.allocations, py::arg("in_use") = counts.in_use,
                    py::arg("kept") = counts.kept);
}

}  // namespace

DeviceArray empty_device_array(const string& dtype, const Shape& shape) {
    const int64_t itemsize = size_of(dtype);
    DeviceArray made = {nullptr, 0, shape, c_strides(shape, itemsize), dtype, itemsize, {}, gpu::current_stream()};
    count_of(shape);
    if (dtype == "int64") made.host = std::make_shared<HostCopy>(HostCopy{made.size(), {}});
    made.memory = gpu::take(size_t(made.size() * itemsize));
    return made;
}

Object python_object(DeviceArray array) { return Object(py::cast(std::move(array)).release().ptr()); }

const DeviceArray* device_array(const Object& o) {
    const py::handle h(o.get());
    return py::isinstance<DeviceArray>(h) ? h.cast<const DeviceArray*>() : nullptr;
}

void bind_device_array(py::module_& m) {
    array_of_device = &as_array;
    py::class_<DeviceArray> array(m, "DeviceArray",
                                  "An array on the device. Slices and reshape() are views; numpy() copies.",
                                  py::module_local());
    array.def_property_readonly("shape", [](const DeviceArray& a) { return py::tuple(py::cast(a.shape)); })
        .def_property_readonly(
            "strides", [](const DeviceArray& a) { return py::tuple(py::cast(a.strides)); }, "In bytes, as NumPy's.")
        .def_property_readonly(
            "offset", [](const DeviceArray& a) { return a.offset; },
            "Bytes from the start of its memory, which views share.")
        .def_property_readonly("ndim", [](const DeviceArray& a) { return a.shape.size(); })
        .def_property_readonly("size", &DeviceArray::size)
        .def_property_readonly("itemsize", [](const DeviceArray& a) { return a.itemsize; })
        .def_property_readonly("nbytes", [](const DeviceArray& a) { return a.size() * a.itemsize; })
        .def_property_readonly("T", &transposed)
        .def("__len__",
             [](const DeviceArray& a) {
                 if (a.shape.empty()) throw py::type_error("len() of an array without axes");
                 return a.shape[0];
             })
        .def("__getitem__", &view)
        .def("reshape", &reshaped, "A view of another shape; -1: what is left.")
        .def("clear", &clear, "Make all numbers zero.")
        .def("fill", &fill, py::arg("value"))
        .def("sum", &sum, py::kw_only(), py::arg("dtype") = py::none(),
             "A float, summed in float64 in one order; waits for the device.")
        .def("average", &average, py::arg("x"), py::arg("rate"), "Come nearer to x by this share of the difference.")
        .def("__add__", &added, py::is_operator())
        .def("__iadd__", &add_to, py::is_operator(), py::return_value_policy::reference)
        .def("__mul__", &multiplied, py::is_operator(), "x (..., C) times columns (C).")
        .def("__repr__", &description)
        .attr("__array_ufunc__") = py::none();
    bind_exchange(m, array);
    m.def("zeros", &zeros, py::arg("shape"), py::arg("dtype") = "float32", "An array of zeros on the device.");
    py::class_<gpu::Recording>(
        m, "Recording", "Work that was launched once more to be kept, and is replayed as a whole.", py::module_local())
        .def("replay", &gpu::Recording::replay);
    m.def("begin_recording", &gpu::Recording::begin, "What is launched from now on is not run, but kept.");
    m.def("end_recording", [] { return std::make_unique<gpu::Recording>(); }, "-> Recording");
    m.def("give_up_recording", &gpu::Recording::give_up, "After an error.");
    m.def(
        "use_new_stream",
        [] {
            if (!gpu::current_stream()) gpu::use_stream(gpu::new_stream());
        },
        "All work goes to a stream that can be recorded.");
    m.def("memory_counts", &memory_counts, "allocations: blocks ever asked for; bytes in_use, and kept for the next.");
    m.def("empty_arena", &gpu::empty_arena, "Give back the device memory that is kept for the next arrays.");
}
}  // namespace minillm
