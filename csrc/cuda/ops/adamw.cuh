// AdamW over the flat buffer. Formulas: minillm/ops/optimizer/adamw.py.
//
//   m  = beta1 * m + (1 - beta1) * g      v = beta2 * v + (1 - beta2) * g^2      g = grad * scale
//   w  = w * decay - rate * m / (sqrt(v) * inv_sqrt_c2 + eps)
//
// One pass: 4 reads and 3 writes a parameter (28 bytes in float32), which is all this op costs.
// Step 1, naive: a thread a parameter. It is coalesced, but a thread has four loads of 4 bytes under way, and memory
// needs more.
// Step 2: a thread for four parameters, 16 bytes a load. With `bits`, w rounded to bfloat16 is written in the same pass,
// 8 bytes a thread: 2 bytes more a parameter, none to read.
#pragma once

#include "cuda/ops/threads.cuh"

namespace minillm::adamw {
using namespace cuda;

template <class T>
struct Step {
    T beta1, beta2, one_minus_beta1, one_minus_beta2, decay, rate, inv_sqrt_c2, eps, scale;
};
template <class T>
struct Arrays {
    T* w;
    const T* grad;
    T *m, *v;
    uint16_t* bits;  // null, or where the bfloat16 copy of w goes (of floats only)
    int64_t n_decayed, n;
};

template <class T>
DEVICE void update(T& w, T grad, T& m, T& v, bool decayed, const Step<T>& s) {
    const T g = grad * s.scale;
    m = s.beta1 * m + s.one_minus_beta1 * g;
    v = s.beta2 * v + s.one_minus_beta2 * (g * g);
    w = w * (decayed ? s.decay : T(1)) - s.rate * m / (sqrt(v) * s.inv_sqrt_c2 + s.eps);
}

// Two numbers of w as bfloat16, the first in the lower half.
DEVICE uint32_t bf16_pair(float a, float b) { return pack<bf16>(a, b); }
DEVICE uint32_t bf16_pair(double, double) { return 0; }  // has no copy

template <class T>
__global__ void naive_adamw(Arrays<T> a, Step<T> s) {
    const int64_t i = thread_number();
    if (i >= a.n) return;
    update(a.w[i], a.grad[i], a.m[i], a.v[i], i < a.n_decayed, s);
    if (a.bits) a.bits[i] = uint16_t(bf16_pair(a.w[i], T(0)));
}

template <class T>
__global__ void adamw_kernel(Arrays<T> a, Step<T> s, bool aligned) {
    const int64_t i = 4 * thread_number();
    if (i >= a.n) return;
    const bool whole = aligned && i + 4 <= a.n;
    const Row<T> ws = row_of(a.w, a.n, whole), ms = row_of(a.m, a.n, whole), vs = row_of(a.v, a.n, whole);
    Vec4<T> w = ws.get(i), m = ms.get(i), v = vs.get(i);
    const Vec4<T> g = row_of(a.grad, a.n, whole).get(i);
    update(w.x, g.x, m.x, v.x, i < a.n_decayed, s);
    update(w.y, g.y, m.y, v.y, i + 1 < a.n_decayed, s);
    update(w.z, g.z, m.z, v.z, i + 2 < a.n_decayed, s);
    update(w.w, g.w, m.w, v.w, i + 3 < a.n_decayed, s);
    ws.put(i, w);
    ms.put(i, m);
    vs.put(i, v);
    if (!a.bits) return;
    const uint32_t low = bf16_pair(w.x, w.y), high = bf16_pair(w.z, w.w);
    row_of(a.bits, a.n, whole).put(i, {uint16_t(low), uint16_t(low >> 16), uint16_t(high), uint16_t(high >> 16)});
}
}  // namespace minillm::adamw
