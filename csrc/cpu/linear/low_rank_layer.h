// A frozen linear layer with a low-rank update, for both layouts of its matrices: lora_linear.cpp and lora_projection.cpp.
//
//   h = scale * drop(x) @ a         out = x @ weight + bias + h @ b
//   dh = scale * dout @ b.T         dx = dout @ weight.T + drop(dh @ a.T)       da = drop(x).T @ dh       db = h.T @ dout
//
// Two GEMMs where a layer that learns has three; the update rides on them (low_rank.h). Cached: x, rounded where matmuls are in
// bfloat16, the mask's bits, and h.
#pragma once

#include "cpu/linear/bf16_weight.h"
#include "cpu/linear/low_rank.h"
#include "python/register.h"

namespace minillm::low_rank {

inline void check_p(double p) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got ", p);
}

// The mask's bits for an array of n numbers; without dropout an empty array.
inline Result<uint8_t> drawn(int64_t n, double p, const dropout::PhiloxKey& key) {
    auto keep = fresh<uint8_t>({p > 0 ? dropout::mask_bytes(n) : 0});
    if (p > 0) without_gil([&] { dropout::mask_kernel(keep, n, p, key); });
    return keep;
}

inline const uint8_t* mask_bits(const char* name, const Array& keep, int64_t n, double p) {
    return input<uint8_t>(name, keep, {p > 0 ? dropout::mask_bytes(n) : 0});
}

template <class T>
Mask<T> mask_of(const uint8_t* keep, double p) {
    return p > 0 ? Mask<T>{keep, 0, T(1 / (1 - p))} : Mask<T>{};
}

// OUT_FIRST: weight (J, I), a (r, I), b (J, r); else (I, J), (I, r), (r, J).
template <class T, class S, bool OUT_FIRST>
struct Layer : Types<T, S> {
    typedef Types<T, S> Kind;
    typedef typename Kind::Bits Bits;
    typename Kind::Right weight;  // (I, J)
    const T *a, *b;
    int64_t I, J, r;
    T scale;

    // Its arguments, checked; their names begin with `prefix`.
    static Layer of(int64_t I, const Array& weight, const Array& a, const Array& b, double scale,
                    const string& prefix = "") {
        const Shape from_inputs = OUT_FIRST ? Shape{ANY, I} : Shape{I, ANY};
        typename Kind::Right w = operand(prefix + "weight", weight, from_inputs);
        int64_t J = weight.shape[!OUT_FIRST];
        const T* pa = input<T>((prefix + "a").c_str(), a, from_inputs);
        int64_t r = a.shape[!OUT_FIRST];
        const T* pb = input<T>((prefix + "b").c_str(), b, OUT_FIRST ? Shape{J, r} : Shape{r, J});
        return {{}, OUT_FIRST ? w.transpose() : w, pa, pb, I, J, r, T(scale)};
    }
    static typename Kind::Right operand(const string& name, const Array& weight, const Shape& shape) {
        if constexpr (Kind::MIXED) return operand_of(name.c_str(), weight, shape);
        else return Matrix<T>{input<T>(name.c_str(), weight, shape), weight.shape[1]};
    }

    Shape shape_of_a() const { return OUT_FIRST ? Shape{r, I} : Shape{I, r}; }
    Shape shape_of_b() const { return OUT_FIRST ? Shape{J, r} : Shape{r, J}; }
    const T* a_by_rank(Scratch<T>& scratch) const { return rank_major(scratch, a, I, r, OUT_FIRST); }
    const T* b_by_rank(Scratch<T>& scratch) const { return rank_major(scratch, b, J, r, !OUT_FIRST); }

    // stored: x as S, made from x where that is another type.
    void forward(T* out, T* h, const S* stored, const T* x, const T* bias, const Mask<T>& mask, int64_t N) const {
        thread_local Scratch<T> scratch_a, scratch_b;
        const T *ar = a_by_rank(scratch_a), *br = b_by_rank(scratch_b);
        rank_rows(h, r, Dropped<T, S>{stored, I, mask}, N, ar, scale, x);
        Kind::multiply(N, J, I, stored, weight, out, LowRank<T>{bias, h, br, r, J});
    }

    void backward(T* dx, T* da, T* db, bool add, const T* dout, const S* x, const T* h, const Mask<T>& mask,
                  int64_t N) const {
        thread_local Scratch<T> scratch_a, scratch_b, scratch_h;
        thread_local Scratch<S> scratch;
        const T *ar = a_by_rank(scratch_a), *br = b_by_rank(scratch_b);
        T* dh = scratch_h.at_least(N * r);
        const S* stored = (const S*)dout;
        if constexpr (Kind::MIXED) stored = scratch.at_least(N * J);
        rank_rows(dh, r, Dropped<T, S>{stored, J, {}}, N, br, scale, dout);
        Kind::multiply(N, I, J, stored, weight.transpose(), dx, LowRank<T>{nullptr, dh, ar, r, I, mask});
        outer_sums({da, !OUT_FIRST, add}, dh, r, Dropped<T, S>{x, I, mask}, N);
        outer_sums({db, OUT_FIRST, add}, h, r, Dropped<T, S>{stored, J, {}}, N);
    }
};

template <class T, class S, bool OUT_FIRST>
Tuple forward(const Array& x, const Array& weight, const Object& bias, const Array& a, const Array& b, double scale,
              double p, const Tuple& key) {
    typedef Layer<T, S, OUT_FIRST> L;
    typedef typename L::Bits Bits;
    int64_t I = last("x", x), N = x.rows();
    const T* px = input<T>("x", x, x.shape);
    L layer = L::of(I, weight, a, b, scale);
    const T* pb = bias.is_none() && OUT_FIRST ? nullptr : input<T>("bias", argument<Array>(bias, "bias"), {layer.J});
    check_p(p);
    auto keep = drawn(N * I, p, dropout::philox_key(key));
    auto out = fresh<T>(x.with_last(layer.J)), h = fresh<T>({N, layer.r});
    Result<Bits> stored = L::MIXED ? fresh<Bits>(x.shape) : Result<Bits>(x, (Bits*)px);  // read only, if it is x
    without_gil([&] { layer.forward(out, h, (const S*)stored.data, px, pb, mask_of<T>(keep, p), N); });
    return tuple_of({out, tuple_of({stored, weight, a, b, h, keep, scale, p})});
}

template <class T, class S, bool OUT_FIRST>
Tuple backward(const Array& dout, const Tuple& cache, const Object& into) {
    typedef Layer<T, S, OUT_FIRST> L;
    typedef typename L::Bits Bits;
    Array x = cached(cache, 0), h = cached(cache, 4), keep = cached(cache, 5);
    double p = cached<double>(cache, 7);
    int64_t I = last("x", x), N = x.rows();
    auto* px = (const S*)input<Bits>(L::MIXED ? "cached x" : "x", x, x.shape);
    L layer = L::of(I, cached(cache, 1), cached(cache, 2), cached(cache, 3), cached<double>(cache, 6));
    const T *ph = input<T>("cached h", h, {N, layer.r}), *pd = input<T>("dout", dout, x.with_last(layer.J));
    check_p(p);
    const uint8_t* pk = mask_bits("cached keep", keep, N * I, p);
    auto dx = fresh<T>(x.shape);
    auto d = gradients<T>(into, {layer.shape_of_a(), layer.shape_of_b()});
    without_gil([&] { layer.backward(dx, d[0], d[1], !into.is_none(), pd, px, ph, mask_of<T>(pk, p), N); });
    return tuple_of({dx, d[0], d[1]});
}

// The same for arrays of either float type.
template <bool OUT_FIRST>
Tuple forward_any(const Array& x, const Array& weight, const Object& bias, const Array& a, const Array& b, double scale,
                  double p, const Tuple& key) {
    return by_dtype("x", x, [&](auto zero) {
        typedef decltype(zero) T;
        return forward<T, T, OUT_FIRST>(x, weight, bias, a, b, scale, p, key);
    });
}

template <bool OUT_FIRST>
Tuple backward_any(const Array& dout, const Tuple& cache, const Object& into) {
    return by_dtype("x", cached(cache, 0), [&](auto zero) {
        typedef decltype(zero) T;
        return backward<T, T, OUT_FIRST>(dout, cache, into);
    });
}

}  // namespace minillm::low_rank
