// NumPy in and out: checks, copies to the device and back, one function pair a variant. Compiled by any C++ compiler.
//
// The contract is minillm/ops/attention.py's: qkv (B, T, 3C) -> out (B, T, C), cache; dout (B, T, C) -> dqkv (B, T, 3C).
// The cache is (qkv, n_head, causal, out, lse) with lse (B, NH, T): O(T) memory. float32 arrays given to the mma and
// wgmma variants are rounded to bfloat16 on the device.
#include <cmath>

#include "cuda/attention/host.h"
#include "cuda/ops/operands.h"

namespace minillm {
template <>
inline const string DTYPE<attention::Bfloat16> = "bfloat16";  // ml_dtypes'
template <>
inline const string DTYPE<attention::Float16> = "float16";

namespace attention {
namespace {

constexpr int BEST = 0;

Sizes sizes_of(const Array& qkv, int64_t n_head, bool causal) {
    check_shape("qkv", qkv, {ANY, ANY, ANY});
    const int64_t T = qkv.shape[1], width = qkv.shape[2];
    if (n_head < 1 || n_head > width / 3 || width % (3 * n_head))
        fail("qkv must have a last axis of 3 * n_head * HS: got ", width, " with n_head=", n_head);
    const int64_t HS = width / (3 * n_head);
    if (HS > 256) fail("n_head must leave at most 256 numbers a head: got ", HS);
    if (T > 0x7fffffff) fail("qkv must have fewer than 2^31 tokens: got ", T);
    return {qkv.shape[0], n_head, int(T), int(HS), 1 / std::sqrt(double(HS)), causal};
}

// Call f with a zero of the array's type, if this variant takes it.
template <int VARIANT, class F>
auto by_number(const Array& qkv, F f) {
    constexpr bool tensor_cores = VARIANT == BEST || VARIANT >= 3, exact = VARIANT < 3;
    if (qkv.dtype == "float32") return f(float());
    if (qkv.dtype == "float64" && exact) return f(double());
    if (qkv.dtype == "float16" && tensor_cores) return f(Float16());
    if (qkv.dtype == "bfloat16" && tensor_cores) return f(Bfloat16());
    fail("qkv must be float32", exact ? " or float64" : "", tensor_cores ? " or float16 or bfloat16" : "", ": got ",
         qkv.dtype);
}

// BEST: the tensor cores for 16-bit numbers; else matmuls in the type of the array.
template <class T>
Variant variant_for(int variant, int HS) {
    return variant != BEST ? Variant(variant) : best_variant(sizeof(T), HS);
}

// The same without copies: arrays of the device in and out.
template <class T>
Tuple forward_on_device(Variant variant, const Array& qkv, const Sizes& n) {
    Operands on;
    const T* x = on.input<T>("qkv", qkv, qkv.shape);
    auto out = on.fresh<T>({n.B, n.T, n.NH * n.HS});
    auto lse = on.fresh<Sum<T>>({n.B, n.NH, n.T});
    const auto q = [&](int which) { return part<const T>(x, n, which, 3); };
    on.run([&](gpu::Stream stream) {
        forward(variant, Forward<T>{q(0), q(1), q(2), part<T>(out, n, 0, 1), lse}, n, stream);
    });
    return tuple_of({out, tuple_of({qkv, n.NH, int64_t(n.causal), out, lse})});
}

template <class T>
Object backward_on_device(Variant variant, const Array& dout, const Array& qkv, const Array& out, const Array& lse,
                          const Sizes& n) {
    Operands on;
    const Shape shape = {n.B, n.T, n.NH * n.HS};
    const T *x = on.input<T>("qkv", qkv, qkv.shape), *d = on.input<T>("dout", dout, shape),
            *o = on.input<T>("out", out, shape);
    const Sum<T>* l = on.input<Sum<T>>("lse", lse, {n.B, n.NH, n.T});
    auto dqkv = on.fresh<T>(qkv.shape);
    Sum<T>* delta = on.scratch<Sum<T>>(n.heads() * n.T);
    const auto q = [&](int which) { return part<const T>(x, n, which, 3); };
    const auto dq = [&](int which) { return part<T>(dqkv, n, which, 3); };
    on.run([&](gpu::Stream stream) {
        const Backward<T> arrays = {q(0),  q(1),  q(2), part<const T>(o, n, 0, 1), part<const T>(d, n, 0, 1), l, delta,
                                    dq(0), dq(1), dq(2)};
        backward(variant, arrays, n, stream);
    });
    return dqkv;
}

template <int VARIANT>
Tuple attention_forward(const Array& qkv, int64_t n_head, bool causal) {
    return by_number<VARIANT>(qkv, [&](auto zero) {
        using T = decltype(zero);
        const Sizes n = sizes_of(qkv, n_head, causal);
        if (qkv.on_device) return forward_on_device<T>(variant_for<T>(VARIANT, n.HS), qkv, n);
        const T* x = input<T>("qkv", qkv, qkv.shape);
        auto out = fresh<T>({n.B, n.T, n.NH * n.HS});
        auto lse = fresh<Sum<T>>({n.B, n.NH, n.T});
        if (n.heads() && n.T) {
            gpu::check_driver();
            without_gil([&] { forward_on_host<T>(variant_for<T>(VARIANT, n.HS), x, out, lse, n); });
        }
        return tuple_of({out, tuple_of({qkv, n_head, int64_t(causal), out, lse})});
    });
}

template <int VARIANT>
Object attention_backward(const Array& dout, const Tuple& cache) {
    const Array qkv = cached(cache, 0), out = cached(cache, 3), lse = cached(cache, 4);
    return by_number<VARIANT>(qkv, [&](auto zero) -> Object {
        using T = decltype(zero);
        const Sizes n = sizes_of(qkv, cached<int64_t>(cache, 1), cached<int64_t>(cache, 2));
        const Shape shape = {n.B, n.T, n.NH * n.HS};
        if (qkv.on_device) return backward_on_device<T>(variant_for<T>(VARIANT, n.HS), dout, qkv, out, lse, n);
        const T *d = input<T>("dout", dout, shape), *x = input<T>("qkv", qkv, qkv.shape),
                *o = input<T>("out", out, shape);
        const Sum<T>* l = input<Sum<T>>("lse", lse, {n.B, n.NH, n.T});
        auto dqkv = fresh<T>(qkv.shape);
        if (n.heads() && n.T) {
            gpu::check_driver();
            without_gil([&] { backward_on_host<T>(variant_for<T>(VARIANT, n.HS), x, o, d, l, dqkv, n); });
        }
        return dqkv;
    });
}

const Register registered[] = {
    {"attention_forward(qkv, n_head, causal=True)", &attention_forward<BEST>},
    {"attention_backward(dout, cache)", &attention_backward<BEST>},
    {"attention_forward_1_naive(qkv, n_head, causal=True)", &attention_forward<1>},
    {"attention_backward_1_naive(dout, cache)", &attention_backward<1>},
    {"attention_forward_2_flash(qkv, n_head, causal=True)", &attention_forward<2>},
    {"attention_backward_2_flash(dout, cache)", &attention_backward<2>},
    {"attention_forward_3_mma(qkv, n_head, causal=True)", &attention_forward<3>},
    {"attention_backward_3_mma(dout, cache)", &attention_backward<3>},
    {"attention_forward_4_wgmma(qkv, n_head, causal=True)", &attention_forward<4>},
    {"attention_backward_4_wgmma(dout, cache)", &attention_backward<4>},
};

}  // namespace
}  // namespace attention
}  // namespace minillm
