// Attention on device arrays of other libraries: q, k, v (B, NH, T, HS) -> out, cache; dout, cache -> dq, dk, dv.
#pragma once

#include "dlpack.h"

namespace {

template <class T>
View<const T> view(const Incoming& a) {
    return {static_cast<const T*>(a.data), a.strides[0], a.strides[1], a.strides[2]};
}
template <class T>
View<T> view(const DeviceTensor& a) {
    const Shape s = c_strides(a.shape);
    return {static_cast<T*>(a.memory.get()), s[0], s[1], s[2]};
}

inline Sizes sizes_of(const Incoming& q, bool causal) {
    const Shape& s = q.shape;
    if (s[3] < 1 || s[3] > 256) fail("q must have 1 to 256 numbers a head: got " + std::to_string(s[3]));
    if (s[2] > 0x7fffffff) fail("q must have fewer than 2^31 tokens: got " + std::to_string(s[2]));
    return {s[0], s[1], int(s[2]), int(s[3]), 1 / std::sqrt(double(s[3])), causal};
}

inline void check_like(const char* name, const Incoming& a, const Incoming& q) {
    if (a.shape != q.shape) fail(string(name) + " must have the shape of q");
    if (!(a.dtype == q.dtype))
        fail(string(name) + " must have dtype " + name_of(q.dtype) + ": got " + name_of(a.dtype));
}

// rung 0: the tensor cores for 16-bit numbers, else flash.
inline Rung rung_of(int rung, const Incoming& q) {
    const DLDataType dtype = q.dtype;
    if (rung < 0 || rung > 4) fail("rung must be 0 to 4: got " + std::to_string(rung));
    if (rung && dtype.bits == 16 && rung < 3)
        fail("q must be float32 or float64 for this rung: got " + string(name_of(dtype)));
    if (rung >= 3 && dtype.bits == 64) fail("q must be float32, float16 or bfloat16 for this rung: got float64");
    return rung ? Rung(rung) : gpu::best_rung(dtype.bits / 8, int(q.shape[3]));
}

template <class F>
void by_dlpack_type(DLDataType t, F f) {
    if (t == FLOAT32) f(float());
    else if (t == FLOAT64) f(double());
    else if (t == FLOAT16) f(Float16());
    else if (t == BFLOAT16) f(Bfloat16());
    else fail("q must be float32, float64, float16 or bfloat16");
}

// The cache: (q, k, v, causal, rung, out, lse).
inline py::tuple arrays_forward(py::object q, py::object k, py::object v, bool causal, int rung, uint64_t stream) {
    check_device();
    const Incoming iq = incoming("q", q, stream), ik = incoming("k", k, stream), iv = incoming("v", v, stream);
    check_like("k", ik, iq);
    check_like("v", iv, iq);
    const Sizes n = sizes_of(iq, causal);
    const Rung chosen = rung_of(rung, iq);
    auto out = std::make_shared<DeviceTensor>(iq.shape, iq.dtype, stream);
    auto lse = std::make_shared<DeviceTensor>(Shape{n.B, n.NH, n.T}, iq.dtype == FLOAT64 ? FLOAT64 : FLOAT32, stream);
    by_dlpack_type(iq.dtype, [&](auto zero) {
        using T = decltype(zero);
        py::gil_scoped_release nogil;
        gpu::forward(
            chosen,
            Forward<T>{view<T>(iq), view<T>(ik), view<T>(iv), view<T>(*out), static_cast<Sum<T>*>(lse->memory.get())},
            n, stream_of(stream));
    });
    return py::make_tuple(*out, py::make_tuple(q, k, v, causal, rung, *out, *lse));
}

inline py::tuple arrays_backward(py::object dout, py::tuple cache, uint64_t stream) {
    const py::object q = cache[0], k = cache[1], v = cache[2];
    const Incoming iq = incoming("q", q, stream), ik = incoming("k", k, stream), iv = incoming("v", v, stream),
                   id = incoming("dout", dout, stream);
    check_like("dout", id, iq);
    const Sizes n = sizes_of(iq, cache[3].cast<bool>());
    const Rung chosen = rung_of(cache[4].cast<int>(), iq);
    const auto& out = cache[5].cast<const DeviceTensor&>();
    const auto& lse = cache[6].cast<const DeviceTensor&>();
    DeviceTensor delta(lse.shape, lse.dtype, stream), dq(iq.shape, iq.dtype, stream),
        dk = DeviceTensor(iq.shape, iq.dtype, stream), dv = DeviceTensor(iq.shape, iq.dtype, stream);
    by_dlpack_type(iq.dtype, [&](auto zero) {
        using T = decltype(zero);
        const View<T> o = view<T>(out);
        py::gil_scoped_release nogil;
        gpu::backward(chosen,
                      Backward<T>{view<T>(iq),
                                  view<T>(ik),
                                  view<T>(iv),
                                  {o.data, o.batch, o.head, o.row},
                                  view<T>(id),
                                  static_cast<const Sum<T>*>(lse.memory.get()),
                                  static_cast<Sum<T>*>(delta.memory.get()),
                                  view<T>(dq),
                                  view<T>(dk),
                                  view<T>(dv)},
                      n, stream_of(stream));
    });
    return py::make_tuple(dq, dk, dv);
}

inline void bind_arrays(py::module_& m) {
    bind_device_tensor(m);
    m.def("arrays_forward", &arrays_forward, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("causal") = true,
          py::arg("rung") = 0, py::arg("stream") = 0,
          "q, k, v (B, NH, T, HS), DLPack, on the device -> out, cache. `stream`: a CUDA stream's handle.");
    m.def("arrays_backward", &arrays_backward, py::arg("dout"), py::arg("cache"), py::arg("stream") = 0,
          "dout (B, NH, T, HS) -> dq, dk, dv.");
}

}  // namespace
