// The numbers of a DeviceArray: copied from and to NumPy, and shared with other libraries where they lie (dlpack.h).
#include "python/dlpack.h"

#include <pybind11/numpy.h>

namespace minillm {
namespace {

constexpr struct {
    const char* name;
    DLDataType type;
} TYPES[] = {{"float32", {2, 32, 1}}, {"float64", {2, 64, 1}}, {"float16", {2, 16, 1}}, {"bfloat16", {4, 16, 1}},
             {"int32", {0, 32, 1}},   {"int64", {0, 64, 1}},   {"int8", {0, 8, 1}},     {"uint8", {1, 8, 1}},
             {"uint16", {1, 16, 1}},  {"uint32", {1, 32, 1}},  {"uint64", {1, 64, 1}}};

DLDataType type_named(const string& dtype) {
    for (const auto& known : TYPES)
        if (dtype == known.name) return known.type;
    fail("dtype must be one that kernels know, such as float32 or int64: got ", dtype);
}
string name_of_type(DLDataType type) {
    for (const auto& known : TYPES)
        if (type == known.type) return known.name;
    fail("x must have a dtype that kernels know, such as float32 or int64");
}

Object object(py::object&& o) { return Object(o.release().ptr()); }

// NumPy's dtype, or the name of one that NumPy does not know (bfloat16, unless ml_dtypes is imported).
py::object numpy_dtype(const string& name) {
    try {
        return py::dtype(name);
    } catch (py::error_already_set&) {
        return py::str(name);
    }
}

// ---- what the host knows ----

// Does the view hold all numbers of its array, in their order?
bool is_whole(const DeviceArray& a) { return !a.offset && a.size() == a.host->count && a.contiguous(); }

// The copy on the host, if it holds for this view.
Object known(const DeviceArray& a) { return a.host && !a.host->theirs && is_whole(a) ? a.host->numbers : Object(); }

Object flat_copy(const DeviceArray& a, const py::object& x) { return a.host ? object(x.attr("flatten")()) : Object(); }

// ---- copies ----

DeviceArray from_numpy(const py::object& given) {
    if (!py::isinstance<py::array>(given))
        throw py::type_error("x must be an array of NumPy: got " +
                             string(py::str(py::type::of(given).attr("__name__"))));
    const py::array x = py::array::ensure(given, py::array::c_style);
    gpu::check_driver();
    DeviceArray made = empty_device_array(py::str(x.dtype()), Shape(x.shape(), x.shape() + x.ndim()));
    if (x.size()) gpu::copy_in(made.data(), x.data(), x.nbytes(), gpu::current_stream());
    if (x.size()) gpu::synchronize(gpu::current_stream());         // else the caller might write to x meanwhile
    remember(made, flat_copy(made, x));
    return made;
}

// Bytes from the array's first number to behind its last, and by how much the first lies behind the lowest address.
std::pair<int64_t, int64_t> span(const DeviceArray& a) {
    int64_t before = 0, bytes = a.itemsize;
    for (size_t i = 0; i < a.shape.size(); i++) {
        const int64_t reach = (a.shape[i] - 1) * a.strides[i];
        bytes += std::abs(reach);
        if (reach < 0) before -= reach;
    }
    return {bytes, before};
}

// A copy; of an array with gaps, through one of all between its ends.
py::array to_numpy(const DeviceArray& a) {
    const py::object dtype = numpy_dtype(a.dtype);
    if (py::isinstance<py::str>(dtype))
        fail("x must have a dtype of NumPy: got ", a.dtype, " (import ml_dtypes first)");
    if (!a.size()) return py::array(py::dtype(dtype), a.shape);
    const auto [bytes, before] = span(a);
    py::array_t<uint8_t> all(bytes);
    gpu::copy_out(all.mutable_data(), a.data() - before, bytes, gpu::current_stream());
    gpu::synchronize(gpu::current_stream());
    const py::array seen(py::dtype(dtype), a.shape, a.strides, all.data() + before, all);
    return a.contiguous() ? seen : py::array(seen.attr("copy")());
}

// From an array of the device, without waiting for it; or from NumPy's, asked for by name.
void copy_from(DeviceArray& a, const py::object& source) {
    const auto from = to<Array>(object(py::object(source)));
    if (!from) throw py::type_error("source must be an array");
    check_no_gaps(a);
    check_shape("source", *from, a.shape);
    check_dtype("source", *from, a.dtype);
    check_contiguous("source", *from);
    const size_t bytes = a.size() * a.itemsize;
    const gpu::Stream stream = gpu::current_stream();
    if (from->on_device) {
        if (bytes) gpu::copy_within(a.data(), from->data, bytes, stream);
        remember(a, known(*device_array(*from)));
        return;
    }
    if (bytes) gpu::copy_in(a.data(), from->data, bytes, stream), gpu::synchronize(stream);
    remember(a, flat_copy(a, source));
}

DeviceArray copied(const DeviceArray& a) {
    if (!a.contiguous()) return from_numpy(to_numpy(a));  // rare: only what leaves for other places has gaps
    DeviceArray made = empty_device_array(a.dtype, a.shape);
    if (a.size()) gpu::copy_within(made.data(), a.data(), a.size() * a.itemsize, gpu::current_stream());
    remember(made, known(a));
    return made;
}

// ---- other libraries ----

DeviceArray from_other(const py::object& x) {
    gpu::check_driver();
    const Incoming in = incoming("x", x, reinterpret_cast<uint64_t>(gpu::current_stream()));
    auto* kept = new py::object(in.keep);
    std::shared_ptr<void> memory(in.data, [kept](void*) {
        const py::gil_scoped_acquire python;
        delete kept;
    });
    const string dtype = name_of_type(in.dtype);
    const int64_t itemsize = size_of(dtype);
    Shape strides = in.strides;
    for (int64_t& stride : strides) stride *= itemsize;
    return {memory, 0, in.shape, strides, dtype, itemsize, {}, gpu::current_stream()};
}

// The stream that others must wait for: it writes there now, whatever stream made the array.
gpu::Stream stream_of_now(const DeviceArray& a) {
    const gpu::Stream now = gpu::current_stream();
    if (a.stream != now) gpu::synchronize(a.stream);
    return now;
}

// A capsule for from_dlpack; a consumer on another stream may start at once, since ours is waited for.
py::capsule to_dlpack(const DeviceArray& a, const py::object& consumer_stream) {
    const auto ours = reinterpret_cast<uint64_t>(stream_of_now(a));
    const bool same = consumer_stream.equal(dlpack_stream(ours)), no_wait = consumer_stream.equal(py::int_(-1));
    if (!same && !no_wait) gpu::synchronize(stream_of_now(a));
    if (a.host) a.host->theirs = true;
    Shape strides = a.strides;
    for (int64_t& stride : strides) stride /= a.itemsize;
    return dlpack_capsule(a.data(), type_named(a.dtype), a.shape, strides, a.memory);
}

void check_dlpack_device(const py::kwargs& asked) {
    const py::object wanted = asked.attr("get")("dl_device");
    const py::tuple here = py::make_tuple(int(OUR_DEVICE), gpu::current_device());
    if (!wanted.is_none() && !wanted.equal(here))
        throw py::buffer_error("dl_device must be where the array is: got " + string(py::str(wanted)));
}

py::dict cuda_array_interface(const DeviceArray& a) {
    if (OUR_DEVICE != CUDA_DEVICE || a.dtype == "bfloat16")
        throw py::attribute_error("__cuda_array_interface__: only for arrays on a GPU, and there is no bfloat16 in it");
    const auto stream = reinterpret_cast<uint64_t>(stream_of_now(a));
    return py::dict(py::arg("shape") = py::tuple(py::cast(a.shape)),
                    py::arg("strides") = py::tuple(py::cast(a.strides)),
                    py::arg("data") = py::make_tuple(reinterpret_cast<uint64_t>(a.data()), false),
                    py::arg("typestr") = py::dtype(a.dtype).attr("str"), py::arg("version") = 3,
                    py::arg("stream") = stream ? stream : 1);
}

[[noreturn]] py::object refuse_numpy(const DeviceArray&, const py::args&, const py::kwargs&) {
    throw py::type_error("an array on the device is never copied in silence: say x.numpy()");
}

}  // namespace

int64_t size_of(const string& dtype) { return type_named(dtype).bits / 8; }

void remember(const DeviceArray& a, Object numbers) {
    if (a.host) a.host->numbers = is_whole(a) ? numbers : Object();
}

Object host_copy(const DeviceArray& a) {
    const Object numbers = known(a);
    return numbers.is_none() ? object(to_numpy(a)) : numbers;
}

void bind_exchange(py::module_& m, py::class_<DeviceArray>& array) {
    array.def_property_readonly("dtype", [](const DeviceArray& a) { return numpy_dtype(a.dtype); })
        .def("numpy", &to_numpy, "A copy for NumPy; waits for the device.")
        .def("copy", &copied, "A copy on the device, without gaps.")
        .def("copy_from", &copy_from, py::arg("source"), "Take the numbers of an array of the device, or of NumPy's.")
        .def("__array__", &refuse_numpy)
        .def(
            "__dlpack__",
            [](const DeviceArray& a, const py::object& stream, const py::kwargs& asked) {
                check_dlpack_device(asked);
                const bool copy = asked.attr("get")("copy").is(py::bool_(true));
                return to_dlpack(copy ? copied(a) : a, stream);
            },
            py::arg("stream") = py::none())
        .def("__dlpack_device__", [](const DeviceArray&) { return py::make_tuple(OUR_DEVICE, gpu::current_device()); })
        .def_property_readonly("__cuda_array_interface__", &cuda_array_interface);
    m.def("from_numpy", &from_numpy, py::arg("x"), "A copy of a NumPy array on the device.");
    m.def("from_dlpack", &from_other, py::arg("x"), "Another library's array on the device, where it lies.");
}
}  // namespace minillm
