// AdamW on a GPU: launchers, and the bindings of both steps of the ladder. Kernels: adamw.cuh.
#include "cuda/ops/adamw.cuh"

#include <cmath>

#include "cuda/ops/operands.h"

namespace minillm::adamw {
namespace {

template <bool NAIVE, class T>
void launch_update(const Arrays<T>& a, const Step<T>& s, stream_t stream) {
    if (NAIVE) over(a.n, naive_adamw<T>, stream, a, s);
    else
        over((a.n + 3) / 4, adamw_kernel<T>, stream, a, s,
             aligned({a.w, a.grad, a.m, a.v}, a.n) && reinterpret_cast<uintptr_t>(a.bits) % 8 == 0);
}

// The buffer for the bfloat16 copy of w, checked, or null for None.
template <class T>
uint16_t* copy_in_bf16(Operands& on, const Object& bits, int64_t n) {
    if (bits.is_none()) return nullptr;
    if (!std::is_same_v<T, float>) fail("bits are of a float32 w: got a w of float64");
    const auto array = to<Array>(bits);
    if (!array) fail("bits must be None or an array of uint16");
    return on.in_place<uint16_t>("bits", *array, {n});
}

template <bool NAIVE>
void adamw_update(const Array& w, const Array& grad, const Array& m, const Array& v, int64_t step, double lr,
                  double beta1, double beta2, double eps, double weight_decay, int64_t n_decayed, double scale,
                  const Object& bits) {
    by_dtype("w", w, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t n = w.size();
        T *pw = on.in_place<T>("w", w, {n}), *pm = on.in_place<T>("m", m, {n}), *pv = on.in_place<T>("v", v, {n});
        const T* pg = on.input<T>("grad", grad, {n});
        if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1))
            fail("beta1 and beta2 must be in [0, 1): got ", beta1, ", ", beta2);
        if (!(eps >= 0 && eps < INFINITY)) fail("eps must be a number of at least 0: got ", eps);
        if (step < 1 || n_decayed < 0 || n_decayed > n)
            fail("step must be at least 1 and n_decayed in [0, ", n, "]: got ", step, ", ", n_decayed);
        const Arrays<T> arrays{pw, pg, pm, pv, copy_in_bf16<T>(on, bits, n), n_decayed, n};
        const Step<T> s{T(beta1),
                        T(beta2),
                        T(1 - beta1),
                        T(1 - beta2),
                        T(1 - lr * weight_decay),
                        T(lr / (1 - std::pow(beta1, step))),
                        T(1 / std::sqrt(1 - std::pow(beta2, step))),
                        T(eps),
                        T(scale)};
        on.run([&](gpu::Stream stream) { launch_update<NAIVE>(arrays, s, stream_t(stream)); });
    });
}

const Register registered[] = {
    {"adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, "
     "n_decayed=0, scale=1.0, bits=None)",
     &adamw_update<false>},
    {"adamw_update_1_naive(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, "
     "n_decayed=0, scale=1.0, bits=None)",
     &adamw_update<true>}};

}  // namespace
}  // namespace minillm::adamw
