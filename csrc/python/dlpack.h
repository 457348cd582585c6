// Arrays of other libraries, where they lie: DLPack (torch, cupy, jax, numpy) and __cuda_array_interface__ in, DLPack
// out. The structures are those of DLPack 0.8 (github.com/dmlc/dlpack), which every library still speaks.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "cuda/gpu/device.h"
#include "python/device_array.h"

namespace minillm {
namespace py = pybind11;

struct DLDevice { int32_t type, id; };
struct DLDataType {
    uint8_t code, bits;
    uint16_t lanes;
    bool operator==(const DLDataType& o) const { return code == o.code && bits == o.bits && lanes == o.lanes; }
};
struct DLTensor {
    void* data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;                       // strides in elements; nullptr: C order
    uint64_t byte_offset;
};
struct DLManagedTensor {
    DLTensor tensor;
    void* context;
    void (*deleter)(DLManagedTensor*);
};
constexpr int32_t CPU_DEVICE = 1, CUDA_DEVICE = 2;
#ifdef EMULATOR
constexpr int32_t OUR_DEVICE = CPU_DEVICE;          // the emulator's device memory is the host's
#else
constexpr int32_t OUR_DEVICE = CUDA_DEVICE;
#endif
constexpr DLDataType FLOAT32 = {2, 32, 1}, FLOAT64 = {2, 64, 1}, FLOAT16 = {2, 16, 1}, BFLOAT16 = {4, 16, 1};

inline const char* name_of(DLDataType t) {
    return t == FLOAT32    ? "float32"
           : t == FLOAT64  ? "float64"
           : t == FLOAT16  ? "float16"
           : t == BFLOAT16 ? "bfloat16"
                           : "other";
}

inline gpu::Stream stream_of(uint64_t handle) { return reinterpret_cast<gpu::Stream>(handle); }
// DLPack's number for a CUDA stream: 0 is not allowed, 1 is the default stream.
inline py::object dlpack_stream(uint64_t handle) {
    return OUR_DEVICE == CUDA_DEVICE ? py::object(py::int_(handle ? handle : 1)) : py::object(py::none());
}

// An array of another library, kept alive; strides in elements.
struct Incoming {
    py::object keep;
    void* data = nullptr;
    DLDataType dtype{};
    Shape shape, strides;
};

inline Incoming from_dlpack(const char* name, const py::object& x, uint64_t stream) {
    const auto device = x.attr("__dlpack_device__")().cast<std::pair<int64_t, int64_t>>();
    if (device.first != OUR_DEVICE || (OUR_DEVICE == CUDA_DEVICE && device.second != gpu::current_device()))
        fail(name, " must be on ",
             OUR_DEVICE == CPU_DEVICE ? "the CPU" : "GPU " + std::to_string(gpu::current_device()),
             ": got DLPack device (", device.first, ", ", device.second, ")");
    py::object capsule = OUR_DEVICE == CUDA_DEVICE ? x.attr("__dlpack__")(py::arg("stream") = dlpack_stream(stream))
                                                   : x.attr("__dlpack__")();
    auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (!managed) throw py::error_already_set();
    const DLTensor& t = managed->tensor;
    const Shape shape(t.shape, t.shape + t.ndim);
    const Shape strides = t.strides ? Shape(t.strides, t.strides + t.ndim) : c_strides(shape, 1);
    void* data = static_cast<char*>(t.data) + t.byte_offset;
    return {py::make_tuple(x, capsule), data, t.dtype, shape, strides};     // the capsule still owns the tensor
}

inline Incoming from_cuda_array_interface(const char* name, const py::object& x) {
    const py::dict face = x.attr("__cuda_array_interface__");
    Incoming in;
    in.keep = x;
    in.data = reinterpret_cast<void*>(face["data"].cast<py::tuple>()[0].cast<uint64_t>());
    const auto type = face["typestr"].cast<string>();
    in.dtype = type == "<f4" ? FLOAT32 : type == "<f8" ? FLOAT64 : type == "<f2" ? FLOAT16 : DLDataType{0, 0, 0};
    in.shape = face["shape"].cast<Shape>();
    in.strides = c_strides(in.shape, 1);
    if (face.contains("strides") && !face["strides"].is_none() && in.dtype.bits) {
        in.strides = face["strides"].cast<Shape>();
        for (int64_t& stride : in.strides) stride /= in.dtype.bits / 8;
    }
    if (face.contains("stream") && !face["stream"].is_none()) {
        const auto producer = face["stream"].cast<uint64_t>();
        if (producer == 0) fail(name, " must not name stream 0 in its __cuda_array_interface__");
        gpu::synchronize(stream_of(producer <= 2 ? 0 : producer));
    }
    return in;
}

// An array of another library, where it lies.
inline Incoming incoming(const char* name, const py::object& x, uint64_t stream) {
    const bool dlpack = py::hasattr(x, "__dlpack__");
    if (!dlpack && !(OUR_DEVICE == CUDA_DEVICE && py::hasattr(x, "__cuda_array_interface__")))
        fail(name, " must be an array with __dlpack__", OUR_DEVICE == CUDA_DEVICE ? " or __cuda_array_interface__" : "",
             ": got ", string(py::str(py::type::of(x).attr("__name__"))));
    return dlpack ? from_dlpack(name, x, stream) : from_cuda_array_interface(name, x);
}

// A capsule that gives an array away; strides in elements.
inline py::capsule dlpack_capsule(void* data, DLDataType dtype, const Shape& shape, const Shape& strides,
                                  std::shared_ptr<void> memory) {
    struct Shared {
        DLManagedTensor managed;
        std::shared_ptr<void> memory;
        Shape shape, strides;
    };
    auto* s = new Shared{{}, std::move(memory), shape, strides};
    const DLDevice device = {OUR_DEVICE, gpu::current_device()};
    s->managed.tensor = {data, device, int32_t(shape.size()), dtype, s->shape.data(), s->strides.data(), 0};
    s->managed.context = s;
    s->managed.deleter = [](DLManagedTensor* managed) { delete static_cast<Shared*>(managed->context); };
    return py::capsule(&s->managed, "dltensor", [](PyObject* capsule) {  // a consumer renames one that it takes over
        if (!PyCapsule_IsValid(capsule, "dltensor")) return;
        auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
        managed->deleter(managed);
    });
}

// ---- what device_array.cpp and device_exchange.cpp have of each other ----

void bind_device_array(py::module_& m);
void bind_exchange(py::module_& m, py::class_<DeviceArray>& array);
void check_no_gaps(const DeviceArray& array);
void remember(const DeviceArray& array, Object numbers);  // written through this view: what the host now knows of it
}  // namespace minillm
