// NumPy in and out: checks, copies to the device and back, one function pair a rung. Plain C++; MODULE is _cuda or
// _cudasim.
//
// The contract is minillm/ops/attention.py's: qkv (B, T, 3C) -> out (B, T, C), cache; dout (B, T, C) -> dqkv (B, T,
// 3C). The cache is (qkv, n_head, causal, out, lse) with lse (B, NH, T): O(T) memory. float32 arrays given to the mma
// and wgmma rungs are rounded to bfloat16 on the device.
#include "../common.h"
#include "host.h"

namespace {
inline void check_device() {
    const string problem = gpu::driver_problem();
    if (!problem.empty()) throw std::runtime_error("the cuda backend cannot run here: " + problem);
}
}  // namespace

#include "bind_arrays.h"

namespace {

constexpr int ANY_RUNG = 0;

Sizes sizes_of(const py::array& qkv, int64_t n_head, bool causal) {
    check_shape("qkv", qkv, {ANY, ANY, ANY});
    const int64_t T = qkv.shape(1), width = qkv.shape(2);
    if (n_head < 1 || n_head > width / 3 || width % (3 * n_head))
        fail("qkv must have a last axis of 3 * n_head * HS: got " + std::to_string(width) +
             " with n_head=" + std::to_string(n_head));
    const int64_t HS = width / (3 * n_head);
    if (HS > 256) fail("n_head must leave at most 256 numbers a head: got " + std::to_string(HS));
    if (T > 0x7fffffff) fail("qkv must have fewer than 2^31 tokens: got " + std::to_string(T));
    return {qkv.shape(0), n_head, int(T), int(HS), 1 / std::sqrt(double(HS)), causal};
}

// One instruction for one warp: words (32, 10) uint32 -> (32, 4). The names: conformance.cuh.
const char* const INSTRUCTIONS[] = {"mma_bf16",   "mma_fp16", "ldmatrix", "ldmatrix_t", "cp_async_16",
                                    "cp_async_4", "pack",     "exp2",     "shuffle"};

py::array instruction(const string& name, py::array words) {
    const auto* in = input<uint32_t>("words", words, {32, 10});
    int which = 0;
    while (which < 9 && name != INSTRUCTIONS[which]) which++;
    if (which == 9) fail("name must be an instruction: got " + name);
    check_device();
    uint32_t padded[32 * 12] = {};
    for (int lane = 0; lane < 32; lane++) std::memcpy(padded + 12 * lane, in + 10 * lane, 40);
    auto out = fresh<uint32_t>({32, 4});
    gpu::conformance(which, padded, out.mutable_data());
    return out;
}

// One of Hopper's for a warpgroup: words (192, 32) uint32 -> (128, 64). The names: conformance_hopper.cuh.
const char* const HOPPER_INSTRUCTIONS[] = {"tma_load",      "wgmma_ss_bf16", "wgmma_ss_fp16",
                                           "wgmma_rs_bf16", "wgmma_rs_fp16", "wgmma_rs_64_bf16"};

py::array hopper_instruction(const string& name, py::array words) {
    const auto* in = input<uint32_t>("words", words, {192, 32});
    int which = 0;
    while (which < 6 && name != HOPPER_INSTRUCTIONS[which]) which++;
    if (which == 6) fail("name must be an instruction of Hopper: got " + name);
    check_device();
    auto out = fresh<uint32_t>({128, 64});
    gpu::hopper_conformance(which, in, out.mutable_data());
    return out;
}

// The numbers of an array; ml_dtypes' bfloat16 is known by its name.
template <class T>
const T* numbers(const char* name, const py::array& a, const py::dtype& dtype, const Shape& shape) {
    check_shape(name, a, shape);
    if (!a.dtype().equal(dtype))
        fail(string(name) + " must have dtype " + string(py::str(dtype)) + ": got " + string(py::str(a.dtype())));
    check_contiguous(name, a);
    return static_cast<const T*>(a.data());
}

// Call f with a zero of the array's type, if this rung takes it.
template <int RUNG, class F>
auto by_number(const py::array& qkv, F f) {
    const string name = py::str(qkv.dtype());
    constexpr bool tensor_cores = RUNG == ANY_RUNG || RUNG >= 3, exact = RUNG < 3;
    if (name == "float32") return f(float());
    if (name == "float64" && exact) return f(double());
    if (name == "float16" && tensor_cores) return f(Float16());
    if (name == "bfloat16" && tensor_cores) return f(Bfloat16());
    fail(string("qkv must be float32") + (exact ? " or float64" : "") +
         (tensor_cores ? " or float16 or bfloat16" : "") + ": got " + name);
}

// ANY_RUNG: the tensor cores for 16-bit numbers; else the products stay in the type of the array.
template <class T>
Rung rung_for(int rung, int HS) {
    return rung != ANY_RUNG ? Rung(rung) : gpu::best_rung(sizeof(T), HS);
}

template <int RUNG>
py::tuple attention_forward(py::array qkv, int64_t n_head, bool causal) {
    return by_number<RUNG>(qkv, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const Sizes n = sizes_of(qkv, n_head, causal);
        const T* x = numbers<T>("qkv", qkv, qkv.dtype(), shape_of(qkv));
        py::array out(qkv.dtype(), Shape{n.B, n.T, n.NH * n.HS});
        auto lse = fresh<Sum<T>>({n.B, n.NH, n.T});
        if (out.size()) {
            check_device();
            auto* o = static_cast<T*>(out.mutable_data());
            Sum<T>* l = lse.mutable_data();
            py::gil_scoped_release nogil;
            forward_on_host<T>(rung_for<T>(RUNG, n.HS), x, o, l, n);
        }
        return py::make_tuple(out, py::make_tuple(qkv, n_head, causal, out, lse));
    });
}

template <int RUNG>
py::array attention_backward(py::array dout, py::tuple cache) {
    py::array qkv = cache[0], out = cache[3], lse = cache[4];
    return by_number<RUNG>(qkv, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const Sizes n = sizes_of(qkv, cache[1].cast<int64_t>(), cache[2].cast<bool>());
        const Shape shape = {n.B, n.T, n.NH * n.HS};
        const T *d = numbers<T>("dout", dout, qkv.dtype(), shape),
                *x = numbers<T>("qkv", qkv, qkv.dtype(), shape_of(qkv)),
                *o = numbers<T>("out", out, qkv.dtype(), shape);
        const Sum<T>* l = input<Sum<T>>("lse", lse, {n.B, n.NH, n.T});
        py::array dqkv(qkv.dtype(), shape_of(qkv));
        if (out.size()) {
            check_device();
            auto* dx = static_cast<T*>(dqkv.mutable_data());
            py::gil_scoped_release nogil;
            backward_on_host<T>(rung_for<T>(RUNG, n.HS), x, o, d, l, dx, n);
        }
        return dqkv;
    });
}

template <int RUNG>
void bind_rung(py::module_& m, const char* variant) {
    m.def(("attention_forward" + string(variant)).c_str(), &attention_forward<RUNG>, py::arg("qkv"), py::arg("n_head"),
          py::arg("causal") = true);
    m.def(("attention_backward" + string(variant)).c_str(), &attention_backward<RUNG>, py::arg("dout"),
          py::arg("cache"));
}

}  // namespace

PYBIND11_MODULE(MODULE, m) {
    m.doc() = "minillm's CUDA attention";
    bind_rung<ANY_RUNG>(m, "");
    bind_rung<1>(m, "_1_naive");
    bind_rung<2>(m, "_2_flash");
    bind_rung<3>(m, "_3_mma");
    bind_rung<4>(m, "_4_wgmma");
    bind_arrays(m);
    m.attr("INSTRUCTIONS") = py::tuple(py::cast(std::vector<string>(INSTRUCTIONS, INSTRUCTIONS + 9)));
    m.def("instruction", &instruction, py::arg("name"), py::arg("words"),
          "One PTX wrapper for one warp: (32, 10) -> (32, 4).");
    m.attr("HOPPER_INSTRUCTIONS") = py::tuple(py::cast(std::vector<string>(HOPPER_INSTRUCTIONS, HOPPER_INSTRUCTIONS + 6)));
    m.def("hopper_instruction", &hopper_instruction, py::arg("name"), py::arg("words"),
          "One PTX wrapper of Hopper's for one warpgroup: (192, 32) -> (128, 64).");
    m.def("capability", &gpu::capability, "Compute capability of the GPU, 90 for 9.0.");
    m.def("peak_bytes", &gpu::peak_bytes, "Most device memory of ours in use at once since the last call.");
    m.def("driver_problem", &gpu::driver_problem, "Why nothing can run here; empty if it can.");
    m.def("last_seconds", [] { return py::dict(py::arg("in") = seconds.in, py::arg("kernels") = seconds.kernels,
                                               py::arg("out") = seconds.out); },
          "Seconds of the last call: copies in, kernels, copies out.");
#ifdef EMULATOR
    m.def("set_schedule", [](unsigned seed) { emu::seed = seed; }, py::arg("seed"), "See emulator.h, `seed`.");
    m.def("set_capability", [](int number) { emu::capability = number; }, py::arg("number"), "90: the default.");
    m.def("take_bank_conflicts", [] { return std::exchange(emu::bank_conflicts, 0); }, "Counted since the last call.");
#endif
}
