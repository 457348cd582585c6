// The MLP of a block as one op. Formulas: minillm/ops/mlp.py.
//
//   h = x @ W1 + b1 (N, F)      a = gelu(h) (N, F)      out = a @ W2 + b2
//   dh = (dout @ W2.T) * gelu'(h)      dW2 = a.T @ dout      dx = dh @ W1.T      dW1 = x.T @ dh
//
// GELU is the epilogue of the GEMM before it, not a pass over memory: forward, each tile of h becomes a tile of a as soon as
// it is summed; back, each tile of dout @ W2.T meets its tile of h and becomes dh at once, and the same exponential gives a again. So only
// h is cached; a and dh live in scratch, for MLP_ROWS rows at a time, and da is never stored at all.
// Loop order: pieces of MLP_ROWS rows > GEMMs. Gradients of weights add up over pieces, in order.
#include "cpu/mlp.h"
#include "cpu/gemm/matmul.h"
#include "cpu/linear/column_sums.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::mlp {

// h goes to memory, a = gelu(h) is what the GEMM stores.
template <class T>
struct GeluOfH {
    AddBias<T> add_bias;
    T* h;
    int64_t F;
    Vec<T> operator()(Vec<T> v, int64_t row, int64_t column, int64_t n) const {
        v = add_bias(v, row, column, n);
        store_part(h + row * F + column, v, n);
        return vgelu<T>(v);
    }
};

// a = gelu(h) goes to memory, and dh = da * slope is what the GEMM stores.
template <class T>
struct SlopeAtH {
    const T* h;
    T* a;
    int64_t F;
    Vec<T> operator()(Vec<T> da, int64_t row, int64_t column, int64_t n) const {
        Vec<T> slope, value = vgelu_and_slope<T>(load_part(h + row * F + column, n), slope);
        store_part(a + row * F + column, value, n);
        return da * slope;
    }
};

template <class T>
void forward_kernel(T* out, T* h, const T* x, const T* w1, const T* b1, const T* w2, const T* b2, int64_t N, int64_t C,
                    int64_t F, int64_t D) {
    thread_local Scratch<T> scratch;
    T* a = scratch.at_least(std::min(N, MLP_ROWS) * F);  // (rows, F)
    for (int64_t row = 0; row < N; row += MLP_ROWS) {
        int64_t rows = std::min(MLP_ROWS, N - row);
        matmul<T>(rows, F, C, {x + row * C, C}, {w1, F}, a, F, false, GeluOfH<T>{{b1}, h + row * F, F});
        matmul<T>(rows, D, F, {a, F}, {w2, D}, out + row * D, D, false, AddBias<T>{b2});
    }
}

template <class T>
void backward_kernel(const MlpGradients<T>& d, bool into, const T* dout, const T* x, const T* w1, const T* w2,
                     const T* h, int64_t N, int64_t C, int64_t F, int64_t D) {
    thread_local Scratch<T> scratch_a, scratch_dh;
    int64_t most = std::min(N, MLP_ROWS);
    T *a = scratch_a.at_least(most * F), *dh = scratch_dh.at_least(most * F);  // (rows, F)
    for (int64_t row = 0; row < N || row == 0; row += MLP_ROWS) {  // once for N = 0: zero gradients
        int64_t rows = std::min(MLP_ROWS, N - row);
        const T *xr = x + row * C, *doutr = dout + row * D;
        bool add = into || row > 0;
        matmul<T>(rows, F, D, {doutr, D}, {w2, D, true}, dh, F, false, SlopeAtH<T>{h + row * F, a, F});
        if (d.w2) matmul<T>(F, D, rows, {a, F, true}, {doutr, D}, d.w2, D, add);
        matmul<T>(rows, C, F, {dh, F}, {w1, F, true}, d.x + row * C, C);
        if (d.w1) matmul<T>(C, F, rows, {xr, C, true}, {dh, F}, d.w1, F, add);
        column_sums(d.b1, dh, rows, F, add);
        column_sums(d.b2, doutr, rows, D, add);
    }
}

Tuple mlp_forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& proj_weight,
                  const Array& proj_bias) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *w1 = input<T>("fc_weight", fc_weight, {C, ANY});
        int64_t F = fc_weight.shape[1];
        const T *b1 = input<T>("fc_bias", fc_bias, {F}), *w2 = input<T>("proj_weight", proj_weight, {F, ANY});
        int64_t D = proj_weight.shape[1];
        const T* b2 = input<T>("proj_bias", proj_bias, {D});
        auto out = fresh<T>(x.with_last(D)), h = fresh<T>({N, F});
        without_gil([&] { forward_kernel<T>(out, h, px, w1, b1, w2, b2, N, C, F, D); });
        return tuple_of({out, tuple_of({x, fc_weight, proj_weight, h})});
    });
}

Tuple mlp_backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), fc_weight = cached(cache, 1), proj_weight = cached(cache, 2), h = cached(cache, 3);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *w1 = input<T>("fc_weight", fc_weight, {C, ANY});
        int64_t F = fc_weight.shape[1];
        const T *w2 = input<T>("proj_weight", proj_weight, {F, ANY}), *ph = input<T>("cached h", h, {N, F});
        int64_t D = proj_weight.shape[1];
        const T* pd = input<T>("dout", dout, x.with_last(D));
        auto dx = fresh<T>(x.shape);
        auto d = gradients<T>(into, {{C, F}, {F}, {F, D}, {D}});
        MlpGradients<T> to{dx, d[0], d[1], d[2], d[3]};
        without_gil([&] { backward_kernel<T>(to, !into.is_none(), pd, px, w1, w2, ph, N, C, F, D); });
        return tuple_of({dx, d[0], d[1], d[2], d[3]});
    });
}

const Register registered[] = {{"mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias)", &mlp_forward},
                               {"mlp_backward(dout, cache, into=None)", &mlp_backward}};

}  // namespace minillm::mlp
