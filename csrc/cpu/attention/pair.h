// The binding of attention, for every variant: a class whose forward and backward take raw pointers.
#pragma once

#include "cpu/attention/heads.h"
#include "python/register.h"

namespace minillm::attention {

inline Sizes sizes_of(const Array& qkv, int64_t n_head) {
    check_shape("qkv", qkv, {ANY, ANY, ANY});
    int64_t width = qkv.shape[2];
    if (n_head < 1 || n_head > width / 3 || width % (3 * n_head))
        fail("qkv must have a last axis of 3 * n_head * HS: got ", width, " with n_head=", n_head);
    return {qkv.shape[0], qkv.shape[1], n_head, width / (3 * n_head)};
}

template <class Kernel>
Tuple forward(const Array& qkv, int64_t n_head) {
    return by_dtype("qkv", qkv, [&](auto zero) {
        using T = decltype(zero);
        Sizes n = sizes_of(qkv, n_head);
        const T* px = input<T>("qkv", qkv, qkv.shape);
        auto out = fresh<T>({n.B, n.T, n.C()}), logsumexp = fresh<T>({n.B, n.NH, n.T});
        without_gil([&] { Kernel::template forward<T>(out, logsumexp, px, n); });
        return tuple_of({out, tuple_of({qkv, n_head, out, logsumexp})});
    });
}

template <class Kernel>
Object backward(const Array& dout, const Tuple& cache) {
    Array qkv = cached(cache, 0), out = cached(cache, 2), logsumexp = cached(cache, 3);
    return by_dtype("qkv", qkv, [&](auto zero) -> Object {
        using T = decltype(zero);
        Sizes n = sizes_of(qkv, cached<int64_t>(cache, 1));
        const T *pd = input<T>("dout", dout, {n.B, n.T, n.C()}), *px = input<T>("qkv", qkv, qkv.shape),
                *po = input<T>("cached out", out, {n.B, n.T, n.C()}),
                *pl = input<T>("cached logsumexp", logsumexp, {n.B, n.NH, n.T});
        auto dqkv = fresh<T>(qkv.shape);
        without_gil([&] { Kernel::template backward<T>(dqkv, pd, px, po, pl, n); });
        return dqkv;
    });
}

// Makes a variant known: "" is the default, "_1_naive" and so on the others.
template <class Kernel>
struct Variant {
    Register forward_, backward_;
    explicit Variant(const string& name)
        : forward_("attention_forward" + name + "(qkv, n_head)", &forward<Kernel>),
          backward_("attention_backward" + name + "(dout, cache)", &backward<Kernel>) {}
};

}  // namespace minillm::attention
