// The MLP of a block with low-rank updates, as one op. Formulas: minillm/ops/lora_mlp.py; plan: mlp.cpp, its twin that learns whole.
//
//   h1 = s1 drop(x) @ a1      h = x @ W1 + b1 + h1 @ b1'      z = gelu(h)      h2 = s2 drop(z) @ a2      out = z @ W2 + b2 + h2 @ b2'
//   d2 = s2 dout @ b2'.T      dh = (dout @ W2.T + drop(d2 @ a2.T)) * gelu'(h)
//   d1 = s1 dh @ b1'.T        dx = dh @ W1.T + drop(d1 @ a1.T)
//
// Both the update and GELU are the epilogue of the GEMM before them. Four GEMMs where mlp.cpp has six. Cached: x and h, in
// bf16 where matmuls are, h1 and h2. Loop order: pieces of ROWS rows > GEMMs.
#include "cpu/linear/low_rank_layer.h"
#include "cpu/simd/math.h"

namespace minillm::lora_mlp {

using namespace low_rank;
constexpr int64_t ROWS = ROWS_OF_A;

// h and z = gelu(h) go to memory.
template <class T, class S>
struct GeluOfSum {
    LowRank<T> sum;
    S *h, *z;
    void operator()(Vec<T> v, int64_t row, int64_t column, int64_t n) const {
        v = sum(v, row, column, n);
        store_numbers(h + row * sum.columns + column, v, n);
        store_numbers(z + row * sum.columns + column, vgelu<T>(v), n);
    }
};

// z = gelu(h) and dh = dz * slope go to memory.
template <class T, class S>
struct SlopeOfSum {
    LowRank<T> sum;
    const S* h;
    S *z, *dh;
    void operator()(Vec<T> v, int64_t row, int64_t column, int64_t n) const {
        int64_t at = row * sum.columns + column;
        Vec<T> slope, value = vgelu_and_slope<T>(load_numbers(h + at, n), slope);
        store_numbers(z + at, value, n);
        store_numbers(dh + at, sum(v, row, column, n) * slope, n);
    }
};

// Of both layers; any may be null.
template <class T>
struct Gradients {
    T *x, *fc_a, *fc_b, *proj_a, *proj_b;
};

template <class T, class S>
struct Mlp {
    typedef Layer<T, S, false> Linear;
    static constexpr bool MIXED = Linear::MIXED;
    int64_t N;
    Linear fc, proj;
    Mask<T> fc_mask, proj_mask;

    // Where a GEMM whose epilogue stores its numbers elsewhere keeps the sums of parts of K: there, too, if they fit.
    static T* parts(S* there, int64_t n) {
        thread_local Scratch<T> scratch;
        if constexpr (MIXED) return scratch.at_least(n);
        else return there;
    }

    void forward(T* out, S* h, T* h1, T* h2, const S* stored, const T* x, const T* b1, const T* b2) const {
        thread_local Scratch<S> scratch;
        thread_local Scratch<T> scratch_a;
        const int64_t C = fc.I, F = fc.J, D = proj.J;
        S* z = scratch.at_least(std::min(N, ROWS) * F);  // (rows, F)
        for (int64_t row = 0; row < N; row += ROWS) {
            int64_t rows = std::min(ROWS, N - row);
            T *u1 = h1 + row * fc.r, *u2 = h2 + row * proj.r;
            const S* part = stored + row * C;
            rank_rows(u1, fc.r, Dropped<T, S>{part, C, fc_mask.from(row)}, rows, fc.a_by_rank(scratch_a), fc.scale,
                      x + row * C);
            Linear::multiply(rows, F, C, part, fc.weight, parts(z, rows * F),
                             GeluOfSum<T, S>{{b1, u1, fc.b, fc.r, F}, h + row * F, z});
            rank_rows(u2, proj.r, Dropped<T, S>{z, F, proj_mask.from(row)}, rows, proj.a_by_rank(scratch_a),
                      proj.scale);
            Linear::multiply(rows, D, F, z, proj.weight, out + row * D, LowRank<T>{b2, u2, proj.b, proj.r, D});
        }
    }

    void backward(const Gradients<T>& d, bool into, const T* dout, const S* x, const S* h, const T* h1,
                  const T* h2) const {
        thread_local Scratch<S> scratch_z, scratch_dh, scratch_dout;
        thread_local Scratch<T> scratch_a, scratch_u1, scratch_u2;
        const int64_t C = fc.I, F = fc.J, D = proj.J, most = std::min(N, ROWS);
        S *z = scratch_z.at_least(most * F), *dh = scratch_dh.at_least(most * F);  // (rows, F)
        T *u1 = scratch_u1.at_least(most * fc.r), *u2 = scratch_u2.at_least(most * proj.r);
        for (int64_t row = 0; row < N || row == 0; row += ROWS) {  // once for N = 0: zero gradients
            int64_t rows = std::min(ROWS, N - row);
            bool add = into || row > 0;
            const T* part = dout + row * D;
            const S* stored = (const S*)part;
            if constexpr (MIXED) stored = scratch_dout.at_least(rows * D);
            const Mask<T> mask_x = fc_mask.from(row), mask_z = proj_mask.from(row);

            rank_rows(u2, proj.r, Dropped<T, S>{stored, D, {}}, rows, proj.b, proj.scale, part);
            Linear::multiply(
                rows, F, D, stored, proj.weight.transpose(), parts(dh, rows * F),
                SlopeOfSum<T, S>{{nullptr, u2, proj.a_by_rank(scratch_a), proj.r, F, mask_z}, h + row * F, z, dh});
            outer_sums({d.proj_a, true, add}, u2, proj.r, Dropped<T, S>{z, F, mask_z}, rows);
            outer_sums({d.proj_b, false, add}, h2 + row * proj.r, proj.r, Dropped<T, S>{stored, D, {}}, rows);

            rank_rows(u1, fc.r, Dropped<T, S>{dh, F, {}}, rows, fc.b, fc.scale);
            Linear::multiply(rows, C, F, dh, fc.weight.transpose(), d.x + row * C,
                             LowRank<T>{nullptr, u1, fc.a_by_rank(scratch_a), fc.r, C, mask_x});
            outer_sums({d.fc_a, true, add}, u1, fc.r, Dropped<T, S>{x + row * C, C, mask_x}, rows);
            outer_sums({d.fc_b, false, add}, h1 + row * fc.r, fc.r, Dropped<T, S>{dh, F, {}}, rows);
        }
    }

    // Its arguments, checked, but for x, which is given.
    static Mlp of(const Shape& shape, int64_t N, const Array& fc_weight, const Array& fc_a, const Array& fc_b,
                  const Array& proj_weight, const Array& proj_a, const Array& proj_b, double fc_scale,
                  double proj_scale) {
        Linear fc = Linear::of(shape.back(), fc_weight, fc_a, fc_b, fc_scale, "fc_");
        return {N, fc, Linear::of(fc.J, proj_weight, proj_a, proj_b, proj_scale, "proj_"), {}, {}};
    }
};

template <class T, class S>
Tuple forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& fc_a, const Array& fc_b,
              const Array& proj_weight, const Array& proj_bias, const Array& proj_a, const Array& proj_b,
              double fc_scale, double proj_scale, double p, const Tuple& fc_key, const Tuple& proj_key) {
    typedef Mlp<T, S> M;
    typedef typename M::Linear::Bits Bits;
    last("x", x);
    const T* px = input<T>("x", x, x.shape);
    M mlp = M::of(x.shape, x.rows(), fc_weight, fc_a, fc_b, proj_weight, proj_a, proj_b, fc_scale, proj_scale);
    const T *b1 = input<T>("fc_bias", fc_bias, {mlp.fc.J}), *b2 = input<T>("proj_bias", proj_bias, {mlp.proj.J});
    check_p(p);
    auto fc_keep = drawn(mlp.N * mlp.fc.I, p, dropout::philox_key(fc_key, "fc_key"));
    auto proj_keep = drawn(mlp.N * mlp.fc.J, p, dropout::philox_key(proj_key, "proj_key"));
    mlp.fc_mask = mask_of<T>(fc_keep, p), mlp.proj_mask = mask_of<T>(proj_keep, p);
    Result<Bits> stored = M::MIXED ? fresh<Bits>(x.shape) : Result<Bits>(x, (Bits*)px);  // read only, if it is x
    auto out = fresh<T>(x.with_last(mlp.proj.J));
    auto h = fresh<Bits>({mlp.N, mlp.fc.J});
    auto h1 = fresh<T>({mlp.N, mlp.fc.r}), h2 = fresh<T>({mlp.N, mlp.proj.r});
    without_gil([&] { mlp.forward(out, (S*)h.data, h1, h2, (const S*)stored.data, px, b1, b2); });
    return tuple_of({out, tuple_of({stored, fc_weight, fc_a, fc_b, proj_weight, proj_a, proj_b, h, h1, h2, fc_keep,
                                    proj_keep, fc_scale, proj_scale, p})});
}

template <class T, class S>
Tuple backward(const Array& dout, const Tuple& cache, const Object& into) {
    typedef Mlp<T, S> M;
    typedef typename M::Linear::Bits Bits;
    Array x = cached(cache, 0), h = cached(cache, 7), h1 = cached(cache, 8), h2 = cached(cache, 9);
    Array fc_keep = cached(cache, 10), proj_keep = cached(cache, 11);
    double p = cached<double>(cache, 14);
    last("x", x);
    auto* px = (const S*)input<Bits>(M::MIXED ? "cached x" : "x", x, x.shape);
    M mlp = M::of(x.shape, x.rows(), cached(cache, 1), cached(cache, 2), cached(cache, 3), cached(cache, 4),
                  cached(cache, 5), cached(cache, 6), cached<double>(cache, 12), cached<double>(cache, 13));
    auto* ph = (const S*)input<Bits>("cached h", h, {mlp.N, mlp.fc.J});
    const T *p1 = input<T>("cached fc_h", h1, {mlp.N, mlp.fc.r}),
            *p2 = input<T>("cached proj_h", h2, {mlp.N, mlp.proj.r});
    const T* pd = input<T>("dout", dout, x.with_last(mlp.proj.J));
    check_p(p);
    mlp.fc_mask = mask_of<T>(mask_bits("cached fc_keep", fc_keep, mlp.N * mlp.fc.I, p), p);
    mlp.proj_mask = mask_of<T>(mask_bits("cached proj_keep", proj_keep, mlp.N * mlp.fc.J, p), p);
    auto dx = fresh<T>(x.shape);
    auto d =
        gradients<T>(into, {mlp.fc.shape_of_a(), mlp.fc.shape_of_b(), mlp.proj.shape_of_a(), mlp.proj.shape_of_b()});
    without_gil([&] { mlp.backward({dx, d[0], d[1], d[2], d[3]}, !into.is_none(), pd, px, ph, p1, p2); });
    return tuple_of({dx, d[0], d[1], d[2], d[3]});
}

Tuple lora_mlp_forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& fc_a,
                       const Array& fc_b, const Array& proj_weight, const Array& proj_bias, const Array& proj_a,
                       const Array& proj_b, double fc_scale, double proj_scale, double p, const Tuple& fc_key,
                       const Tuple& proj_key) {
    return by_dtype("x", x, [&](auto zero) {
        typedef decltype(zero) T;
        return forward<T, T>(x, fc_weight, fc_bias, fc_a, fc_b, proj_weight, proj_bias, proj_a, proj_b, fc_scale,
                             proj_scale, p, fc_key, proj_key);
    });
}

Tuple lora_mlp_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return by_dtype("x", cached(cache, 0), [&](auto zero) {
        typedef decltype(zero) T;
        return backward<T, T>(dout, cache, into);
    });
}

#define ARGUMENTS                                                                                                \
    "(x, fc_weight, fc_bias, fc_a, fc_b, proj_weight, proj_bias, proj_a, proj_b, fc_scale=1.0, proj_scale=1.0, " \
    "p=0.0, fc_key=(0, 0, 0), proj_key=(0, 0, 0))"
const Register registered[] = {{"lora_mlp_forward" ARGUMENTS, &lora_mlp_forward},
                               {"lora_mlp_backward(dout, cache, into=None)", &lora_mlp_backward},
                               {"lora_mlp_forward_bf16" ARGUMENTS, &forward<float, bf16>},
                               {"lora_mlp_backward_bf16(dout, cache, into=None)", &backward<float, bf16>}};

}  // namespace minillm::lora_mlp
