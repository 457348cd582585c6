// The extension minillm._cpp.cuda, or with EMULATOR cudasim: what is registered, attention on DLPack's arrays, and the GPU.
#include <cmath>
#include <cstring>

#include "cuda/attention/host.h"
#include "python/dlpack.h"
#include "python/register.h"

#ifdef EMULATOR
#include "cuda/emulator/settings.h"
#endif

namespace minillm::attention {
namespace {

// ---- attention: q, k, v (B, NH, T, HS) -> out, cache; dout, cache -> dq, dk, dv ----

template <class T>
View<const T> view(const Incoming& a) {
    return {static_cast<const T*>(a.data), a.strides[0], a.strides[1], a.strides[2]};
}
template <class T>
View<T> view(const DeviceArray& a) {
    const Shape s = c_strides(a.shape, 1);
    return {reinterpret_cast<T*>(a.data()), s[0], s[1], s[2]};
}

// Any device array as (B, NH, T, HS) with its last axis contiguous.
Incoming heads(const char* name, const py::object& x, uint64_t stream) {
    Incoming in = incoming(name, x, stream);
    if (in.shape.size() != 4) fail(name, " must have shape (B, NH, T, HS): got ", int64_t(in.shape.size()), " axes");
    if (in.strides[3] != 1 && in.shape[3] > 1) fail(name, " must have a contiguous last axis");
    if (name_of(in.dtype) == string("other")) fail(name, " must be float32, float64, float16 or bfloat16");
    return in;
}

// A fresh array of the caller's stream, whose memory goes back in the order of that stream.
DeviceArray array_on(uint64_t handle, const string& dtype, const Shape& shape) {
    const gpu::Stream stream = stream_of(handle);
    const int64_t itemsize = size_of(dtype);
    DeviceArray made = {nullptr, 0, shape, c_strides(shape, itemsize), dtype, itemsize, {}, stream};
    if (const int64_t bytes = made.size() * itemsize)
        made.memory = {gpu::allocate(bytes, stream), [stream](void* data) { gpu::release(data, stream); }};
    return made;
}

Sizes sizes_of(const Incoming& q, bool causal) {
    const Shape& s = q.shape;
    if (s[3] < 1 || s[3] > 256) fail("q must have 1 to 256 numbers a head: got ", s[3]);
    if (s[2] > 0x7fffffff) fail("q must have fewer than 2^31 tokens: got ", s[2]);
    return {s[0], s[1], int(s[2]), int(s[3]), 1 / std::sqrt(double(s[3])), causal};
}

void check_like(const char* name, const Incoming& a, const Incoming& q) {
    if (a.shape != q.shape) fail(name, " must have the shape of q");
    if (!(a.dtype == q.dtype)) fail(name, " must have dtype ", name_of(q.dtype), ": got ", name_of(a.dtype));
}

// variant 0: the tensor cores for 16-bit numbers, else flash.
Variant variant_of(int variant, const Incoming& q) {
    const DLDataType dtype = q.dtype;
    if (variant < 0 || variant > 4) fail("variant must be 0 to 4: got ", int64_t(variant));
    if (variant && dtype.bits == 16 && variant < 3)
        fail("q must be float32 or float64 for this variant: got ", name_of(dtype));
    if (variant >= 3 && dtype.bits == 64) fail("q must be float32, float16 or bfloat16 for this variant: got float64");
    return variant ? Variant(variant) : best_variant(dtype.bits / 8, int(q.shape[3]));
}

template <class F>
void by_dlpack_type(DLDataType t, F f) {
    if (t == FLOAT32) f(float());
    else if (t == FLOAT64) f(double());
    else if (t == FLOAT16) f(Float16());
    else f(Bfloat16());
}

// The cache: (q, k, v, causal, variant, out, lse).
py::tuple arrays_forward(py::object q, py::object k, py::object v, bool causal, int variant, uint64_t stream) {
    gpu::check_driver();
    const Incoming iq = heads("q", q, stream), ik = heads("k", k, stream), iv = heads("v", v, stream);
    check_like("k", ik, iq);
    check_like("v", iv, iq);
    const Sizes n = sizes_of(iq, causal);
    const Variant chosen = variant_of(variant, iq);
    const DeviceArray out = array_on(stream, name_of(iq.dtype), iq.shape),
                      lse = array_on(stream, iq.dtype == FLOAT64 ? "float64" : "float32", {n.B, n.NH, n.T});
    by_dlpack_type(iq.dtype, [&](auto zero) {
        using T = decltype(zero);
        py::gil_scoped_release nogil;
        auto* l = reinterpret_cast<Sum<T>*>(lse.data());
        forward(chosen, Forward<T>{view<T>(iq), view<T>(ik), view<T>(iv), view<T>(out), l}, n, stream_of(stream));
    });
    return py::make_tuple(out, py::make_tuple(q, k, v, causal, variant, out, lse));
}

py::tuple arrays_backward(py::object dout, py::tuple cache, uint64_t stream) {
    const py::object q = cache[0], k = cache[1], v = cache[2];
    const Incoming iq = heads("q", q, stream), ik = heads("k", k, stream), iv = heads("v", v, stream),
                   id = heads("dout", dout, stream);
    check_like("dout", id, iq);
    const Sizes n = sizes_of(iq, cache[3].cast<bool>());
    const Variant chosen = variant_of(cache[4].cast<int>(), iq);
    const auto& out = cache[5].cast<const DeviceArray&>();
    const auto& lse = cache[6].cast<const DeviceArray&>();
    const DeviceArray delta = array_on(stream, lse.dtype, lse.shape), dq = array_on(stream, out.dtype, iq.shape),
                      dk = array_on(stream, out.dtype, iq.shape), dv = array_on(stream, out.dtype, iq.shape);
    by_dlpack_type(iq.dtype, [&](auto zero) {
        using T = decltype(zero);
        py::gil_scoped_release nogil;
        const View<T> o = view<T>(out), vq = view<T>(dq), vk = view<T>(dk), vv = view<T>(dv);
        const View<const T> q = view<T>(iq), k = view<T>(ik), v = view<T>(iv), d = view<T>(id);
        auto *l = reinterpret_cast<Sum<T>*>(lse.data()), *room = reinterpret_cast<Sum<T>*>(delta.data());
        const Backward<T> arrays = {q, k, v, {o.data, o.batch, o.head, o.row}, d, l, room, vq, vk, vv};
        backward(chosen, arrays, n, stream_of(stream));
    });
    return py::make_tuple(dq, dk, dv);
}

// ---- instructions alone (cuda/gpu/device.h): words in and out ----

template <size_t N>
int place_of(const string& name, const char* const (&names)[N], const char* what) {
    for (size_t i = 0; i < N; i++)
        if (name == names[i]) return int(i);
    fail("name must be ", what, ": got ", name);
}

// One warp: (32, 10) uint32 -> (32, 4).
Object instruction(const string& name, const Array& words) {
    const auto* in = input<uint32_t>("words", words, {32, 10});
    const int which = place_of(name, gpu::INSTRUCTIONS, "an instruction");
    gpu::check_driver();
    uint32_t padded[32 * 12] = {};
    for (int lane = 0; lane < 32; lane++) std::memcpy(padded + 12 * lane, in + 10 * lane, 40);
    auto out = fresh<uint32_t>({32, 4});
    gpu::conformance(which, padded, out);
    return out;
}

// One warpgroup: (192, 32) uint32 -> (128, 64).
Object hopper_instruction(const string& name, const Array& words) {
    const auto* in = input<uint32_t>("words", words, {192, 32});
    const int which = place_of(name, gpu::HOPPER_INSTRUCTIONS, "an instruction of Hopper");
    gpu::check_driver();
    auto out = fresh<uint32_t>({128, 64});
    gpu::hopper_conformance(which, in, out);
    return out;
}

const Register registered[] = {{"instruction(name, words)", &instruction},
                               {"hopper_instruction(name, words)", &hopper_instruction}};

template <size_t N>
py::tuple tuple_from(const char* const (&names)[N]) {
    return py::tuple(py::cast(std::vector<string>(names, names + N)));
}

py::dict last_seconds() {
    return py::dict(py::arg("in") = seconds.in, py::arg("kernels") = seconds.kernels, py::arg("out") = seconds.out);
}

}  // namespace
}  // namespace minillm::attention

PYBIND11_MODULE(MODULE, m) {
    namespace py = pybind11;
    using namespace minillm::attention;
    m.doc() = "minillm's CUDA attention";
    minillm::add_functions(m.ptr());
    minillm::bind_device_array(m);
    m.def("arrays_forward", &arrays_forward, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("causal") = true,
          py::arg("variant") = 0, py::arg("stream") = 0,
          "q, k, v (B, NH, T, HS), DLPack, on the device -> out, cache. `stream`: a CUDA stream's handle.");
    m.def("arrays_backward", &arrays_backward, py::arg("dout"), py::arg("cache"), py::arg("stream") = 0,
          "dout (B, NH, T, HS) -> dq, dk, dv.");
    m.attr("INSTRUCTIONS") = tuple_from(gpu::INSTRUCTIONS);
    m.attr("HOPPER_INSTRUCTIONS") = tuple_from(gpu::HOPPER_INSTRUCTIONS);
    m.def("capability", &gpu::capability, "Compute capability of the GPU, 90 for 9.0.");
    m.def("peak_bytes", &gpu::peak_bytes, "Most device memory of ours in use at once since the last call.");
    m.def("driver_problem", &gpu::driver_problem, "Why nothing can run here; empty if it can.");
    m.def("last_seconds", &last_seconds, "Seconds of the last call: copies in, kernels, copies out.");
#ifdef EMULATOR
    m.def("set_schedule", [](unsigned seed) { emu::seed = seed; }, py::arg("seed"), "See emulator/settings.h, `seed`.");
    m.def("set_capability", [](int number) { emu::capability = number; }, py::arg("number"), "90: the default.");
    m.def("take_bank_conflicts", [] { return std::exchange(emu::bank_conflicts, 0); }, "Counted since the last call.");
#endif
}
