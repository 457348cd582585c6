// The MLP of a block with low-rank updates, as one op. Formulas: minillm/ops/lora_mlp.py; its twin that learns whole:
// mlp.cuh.
//
//   h1 = s1 drop(x) @ a1      h = x @ W1 + b1 + h1 @ b1'      z = gelu(h)
//   h2 = s2 drop(z) @ a2      out = z @ W2 + b2 + h2 @ b2'
//   d2 = s2 dout @ b2'.T      dh = (dout @ W2.T + drop(d2 @ a2.T)) * gelu'(h)
//   d1 = s1 dh @ b1'.T        dx = dh @ W1.T + drop(d1 @ a1.T)
//
// Both the update and GELU are the epilogue of the GEMM before them (low_rank.cuh).
#include "cuda/ops/low_rank_layer.h"
#include "cuda/ops/mlp.cuh"

namespace minillm::lora_mlp {
using namespace low_rank;

// h goes to memory, and sums become gelu(h).
template <class T>
struct GeluOfSum {
    LowRank<T> sum;
    T* h;
    int64_t F;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t n) const {
        sum(v, row, column, n);
        mlp::GeluOfH<T, T>{{nullptr}, h, F}(v, row, column, n);
    }
};
// Sums become dz, and that dh; z goes to memory.
template <class T>
struct SlopeOfSum {
    LowRank<T> sum;
    const T* h;
    T* z;
    int64_t F;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t n) const {
        sum(v, row, column, n);
        mlp::SlopeAtH<T, T>{h, z, F}(v, row, column, n);
    }
};

Tuple lora_mlp_forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& fc_a,
                       const Array& fc_b, const Array& proj_weight, const Array& proj_bias, const Array& proj_a,
                       const Array& proj_b, double fc_scale, double proj_scale, double p, const Tuple& fc_key,
                       const Tuple& proj_key) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const int64_t C = last("x", x), N = x.rows();
        const T* px = on.input<T>("x", x, x.shape);
        const auto fc = layer_of<T, false>(on, C, fc_weight, fc_a, fc_b, fc_scale, "fc_");
        const auto proj = layer_of<T, false>(on, fc.J, proj_weight, proj_a, proj_b, proj_scale, "proj_");
        const int64_t F = fc.J;
        const T *b1 = on.input<T>("fc_bias", fc_bias, {F}), *b2 = on.input<T>("proj_bias", proj_bias, {proj.J});
        dropout::check_p(p);
        const auto fc_mask = dropout::mask_of<T>(p, dropout::philox_key(fc_key, "fc_key")),
                   proj_mask = dropout::mask_of<T>(p, dropout::philox_key(proj_key, "proj_key"));
        auto out = on.fresh<T>(x.with_last(proj.J)), h = on.fresh<T>({N, F}), h1 = on.fresh<T>({N, fc.r}),
             h2 = on.fresh<T>({N, proj.r});
        auto fc_keep = fresh_mask(on, N * C, p), proj_keep = fresh_mask(on, N * F, p);
        T *z = on.scratch<T>(N * F), *room_x = on.scratch<T>(p > 0 ? N * C : 0),
          *room_z = on.scratch<T>(p > 0 ? N * F : 0);
        on.run([&](gpu::Stream s) {
            fc.ranks(h1, draw_and_drop<T>(room_x, fc_keep, px, N * C, p, fc_mask, s), N, s);
            fc.forward(z, px, N, s, GeluOfSum<T>{fc.update(h1, b1), h, F});
            proj.ranks(h2, draw_and_drop<T>(room_z, proj_keep, z, N * F, p, proj_mask, s), N, s);
            proj.forward(out, z, N, s, proj.update(h2, b2));
        });
        return tuple_of({out, tuple_of({x, fc_weight, fc_a, fc_b, proj_weight, proj_a, proj_b, h, h1, h2, fc_keep,
                                        proj_keep, fc_scale, proj_scale, p})});
    });
}

Tuple lora_mlp_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array x = cached(cache, 0), h = cached(cache, 7), h1 = cached(cache, 8), h2 = cached(cache, 9);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const auto p = cached<double>(cache, 14);
        dropout::check_p(p);
        const int64_t C = last("x", x), N = x.rows();
        const T* px = on.input<T>("x", x, x.shape);
        const auto fc = layer_of<T, false>(on, C, cached(cache, 1), cached(cache, 2), cached(cache, 3),
                                           cached<double>(cache, 12), "fc_");
        const auto proj = layer_of<T, false>(on, fc.J, cached(cache, 4), cached(cache, 5), cached(cache, 6),
                                             cached<double>(cache, 13), "proj_");
        const int64_t F = fc.J;
        const T *ph = on.input<T>("cached h", h, {N, F}), *p1 = on.input<T>("cached fc_h", h1, {N, fc.r}),
                *p2 = on.input<T>("cached proj_h", h2, {N, proj.r}),
                *pd = on.input<T>("dout", dout, x.with_last(proj.J));
        const uint8_t *bits_x = mask_bits(on, "cached fc_keep", cached(cache, 10), N * C, p),
                      *bits_z = mask_bits(on, "cached proj_keep", cached(cache, 11), N * F, p);
        const T kept = T(1 / (1 - p));
        auto dx = on.fresh<T>(x.shape);
        auto d = on.gradients<T>(into, {{C, fc.r}, {fc.r, F}, {F, proj.r}, {proj.r, proj.J}});
        T *z = on.scratch<T>(N * F), *dh = on.scratch<T>(N * F), *d1 = on.scratch<T>(N * fc.r),
          *d2 = on.scratch<T>(N * proj.r), *room = on.scratch<T>(p > 0 ? N * (C > F ? C : F) : 0);
        const bool add = !into.is_none();
        on.run([&](gpu::Stream s) {
            proj.ranks_of_dout(d2, pd, N, s);
            proj.backward(dh, pd, N, s, SlopeOfSum<T>{proj.update_of_dx(d2, {bits_z, kept, F}), ph, z, F});
            proj.gradients(d[2], d[3], add, drop(room, bits_z, z, N * F, p, s), d2, p2, pd, N, s);
            fc.ranks_of_dout(d1, dh, N, s);
            fc.backward(dx, dh, N, s, fc.update_of_dx(d1, {bits_x, kept, C}));
            fc.gradients(d[0], d[1], add, drop(room, bits_x, px, N * C, p, s), d1, p1, dh, N, s);
        });
        return tuple_of({dx, d[0], d[1], d[2], d[3]});
    });
}

#define ARGUMENTS                                                                                                \
    "(x, fc_weight, fc_bias, fc_a, fc_b, proj_weight, proj_bias, proj_a, proj_b, fc_scale=1.0, proj_scale=1.0, " \
    "p=0.0, fc_key=(0, 0, 0), proj_key=(0, 0, 0))"
const Register registered[] = {{"lora_mlp_forward" ARGUMENTS, &lora_mlp_forward},
                               {"lora_mlp_backward(dout, cache, into=None)", &lora_mlp_backward}};

}  // namespace minillm::lora_mlp
