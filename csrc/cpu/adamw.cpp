// AdamW over the flat buffer. Formulas: minillm/ops/adamw.py.
//
//   m  = beta1 * m + (1 - beta1) * g      v = beta2 * v + (1 - beta2) * g^2      g = grad * scale
//   w  = w * decay - rate * m / (sqrt(v) * inv_sqrt_c2 + eps)
//
// One pass: 4 reads and 3 writes a parameter (28 bytes in float32), which is all this op costs: it is memory-bandwidth bound.
// Element by element, so parallel without any order to keep. With `bits`, each block of w is rounded to bfloat16 as
// soon as it is written, while it is in L1: 2 bytes more to write, none to read.
#include <cmath>

#include "cpu/simd/bfloat16.h"
#include "python/register.h"

namespace minillm::adamw {

template <class T>
struct Step {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, decay, rate, inv_sqrt_c2, eps, scale;
};

template <class T>
void update_range(T* w, const T* grad, T* m, T* v, const Step<T>& s, T decay, Range range) {
#pragma omp simd
    for (int64_t i = range.begin; i < range.end; i++) {
        T g = grad[i] * s.scale;
        m[i] = s.beta1 * m[i] + s.one_minus_beta1 * g;
        v[i] = s.beta2 * v[i] + s.one_minus_beta2 * (g * g);
        w[i] = w[i] * decay - s.rate * m[i] / (std::sqrt(v[i]) * s.inv_sqrt_c2 + s.eps);
    }
}

// bits: null, or where the bfloat16 copy of w goes (of floats only).
template <class T>
void update(T* w, const T* grad, T* m, T* v, bf16* bits, const Step<T>& s, int64_t n_decayed, int64_t n) {
    constexpr int64_t BLOCK = 1 << 14;
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        int64_t begin = block * BLOCK, end = std::min(n, begin + BLOCK);
        int64_t middle = std::clamp(n_decayed, begin, end);  // decayed before it, not after it
        update_range(w, grad, m, v, s, s.decay, {begin, middle});
        update_range(w, grad, m, v, s, T(1), {middle, end});
        if constexpr (std::is_same_v<T, float>)
            if (bits) round_range(bits, w, {begin, end});
    }
}

// The buffer for the bfloat16 copy of w, checked, or null for None.
template <class T>
bf16* copy_in_bf16(const Object& bits, int64_t n) {
    if (bits.is_none()) return nullptr;
    if (!std::is_same_v<T, float>) fail("bits are of a float32 w: got a w of float64");
    auto array = to<Array>(bits);
    if (!array) fail("bits must be None or an array of uint16");
    return (bf16*)in_place<uint16_t>("bits", *array, {n});
}

void adamw_update(const Array& w, const Array& grad, const Array& m, const Array& v, int64_t step, double lr,
                  double beta1, double beta2, double eps, double weight_decay, int64_t n_decayed, double scale,
                  const Object& bits) {
    by_dtype("w", w, [&](auto zero) {
        using T = decltype(zero);
        int64_t n = w.size();
        T *pw = in_place<T>("w", w, {n}), *pm = in_place<T>("m", m, {n}), *pv = in_place<T>("v", v, {n});
        const T* pg = input<T>("grad", grad, {n});
        if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1))
            fail("beta1 and beta2 must be in [0, 1): got ", beta1, ", ", beta2);
        if (!(eps >= 0 && eps < INFINITY)) fail("eps must be a number of at least 0: got ", eps);
        if (step < 1 || n_decayed < 0 || n_decayed > n)
            fail("step must be at least 1 and n_decayed in [0, ", n, "]: got ", step, ", ", n_decayed);
        bf16* pb = copy_in_bf16<T>(bits, n);
        Step<T> s{T(beta1),
                  T(beta2),
                  T(1 - beta1),
                  T(1 - beta2),
                  T(1 - lr * weight_decay),
                  T(lr / (1 - std::pow(beta1, step))),
                  T(1 / std::sqrt(1 - std::pow(beta2, step))),
                  T(eps),
                  T(scale)};
        without_gil([&] { update<T>(pw, pg, pm, pv, pb, s, n_decayed, n); });
    });
}

const Register registered(
    "adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, "
    "n_decayed=0, scale=1.0, bits=None)",
    &adamw_update);

}  // namespace minillm::adamw
