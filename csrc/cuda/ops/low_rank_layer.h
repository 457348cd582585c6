// The binding of a frozen linear layer with a low-rank update, for both layouts of its matrices; kernels: low_rank.cuh.
#pragma once

#include "cuda/ops/dropout_mask.h"
#include "cuda/ops/low_rank.cuh"

namespace minillm::low_rank {

// The mask's bits for an array of n numbers; without dropout an empty array.
inline Result<uint8_t> fresh_mask(Operands& on, int64_t n, double p) {
    return on.fresh<uint8_t>({p > 0 ? dropout::mask_bytes(n) : 0});
}
inline const uint8_t* mask_bits(Operands& on, const char* name, const Array& keep, int64_t n, double p) {
    const uint8_t* bits = on.input<uint8_t>(name, keep, {p > 0 ? dropout::mask_bytes(n) : 0});
    return p > 0 ? bits : nullptr;
}

template <bool TRANSPOSED>
Shape stored_shape(int64_t rows, int64_t columns) {
    return TRANSPOSED ? Shape{columns, rows} : Shape{rows, columns};
}

// Its arguments, checked; their names begin with `prefix`.
template <class T, bool TRANSPOSED>
Layer<T, TRANSPOSED> layer_of(Operands& on, int64_t I, const Array& weight, const Array& a, const Array& b,
                              double scale, const string& prefix = "") {
    const T* w = on.input<T>((prefix + "weight").c_str(), weight, stored_shape<TRANSPOSED>(I, ANY));
    const int64_t J = weight.shape[!TRANSPOSED];
    const T* pa = on.input<T>((prefix + "a").c_str(), a, stored_shape<TRANSPOSED>(I, ANY));
    const int64_t r = a.shape[!TRANSPOSED];
    const T* pb = on.input<T>((prefix + "b").c_str(), b, stored_shape<TRANSPOSED>(r, J));
    return {w, pa, pb, I, J, r, T(scale)};
}

template <bool TRANSPOSED>
Tuple lora_forward(const Array& x, const Array& weight, const Object& bias, const Array& a, const Array& b,
                   double scale, double p, const Tuple& key) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t I = last("x", x), N = x.rows();
        const T* px = on.input<T>("x", x, x.shape);
        const auto layer = layer_of<T, TRANSPOSED>(on, I, weight, a, b, scale);
        const bool no_bias = bias.is_none() && TRANSPOSED;
        const T* pb = no_bias ? nullptr : on.input<T>("bias", argument<Array>(bias, "bias"), {layer.J});
        dropout::check_p(p);
        const auto mask = dropout::mask_of<T>(p, dropout::philox_key(key));
        auto out = on.fresh<T>(x.with_last(layer.J)), h = on.fresh<T>({N, layer.r});
        auto keep = fresh_mask(on, N * I, p);
        T* room = on.scratch<T>(p > 0 ? N * I : 0);
        on.run([&](gpu::Stream s) {
            layer.ranks(h, draw_and_drop<T>(room, keep, px, N * I, p, mask, s), N, s);
            layer.forward(out, px, N, s, layer.update(h, pb));
        });
        return tuple_of({out, tuple_of({x, weight, a, b, h, keep, scale, p})});
    });
}

template <bool TRANSPOSED>
Tuple lora_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), h = cached(cache, 4), keep = cached(cache, 5);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const auto p = cached<double>(cache, 7);
        dropout::check_p(p);
        const int64_t I = last("x", x), N = x.rows();
        const T* px = on.input<T>("x", x, x.shape);
        const auto layer = layer_of<T, TRANSPOSED>(on, I, cached(cache, 1), cached(cache, 2), cached(cache, 3),
                                                   cached<double>(cache, 6));
        const T *ph = on.input<T>("cached h", h, {N, layer.r}), *pd = on.input<T>("dout", dout, x.with_last(layer.J));
        const uint8_t* bits = mask_bits(on, "cached keep", keep, N * I, p);
        auto dx = on.fresh<T>(x.shape);
        auto d =
            on.gradients<T>(into, {stored_shape<TRANSPOSED>(I, layer.r), stored_shape<TRANSPOSED>(layer.r, layer.J)});
        T *dh = on.scratch<T>(N * layer.r), *room = on.scratch<T>(p > 0 ? N * I : 0);
        on.run([&](gpu::Stream s) {
            layer.ranks_of_dout(dh, pd, N, s);
            layer.backward(dx, pd, N, s, layer.update_of_dx(dh, {bits, T(1 / (1 - p)), I}));
            layer.gradients(d[0], d[1], !into.is_none(), drop(room, bits, px, N * I, p, s), dh, ph, pd, N, s);
        });
        return tuple_of({dx, d[0], d[1]});
    });
}

}  // namespace minillm::low_rank
