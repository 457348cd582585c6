// The MLP in mixed precision: matmuls in bfloat16. Formulas: minillm/ops/mlp.py; the plan: mlp.cpp, of which this is the twin.
//
// What stays between matmuls is bfloat16: x and h in the cache, a and dh in scratch. GELU and its slope are computed in
// float, forward from h before it is rounded. The two GEMMs that end in a or dh store nothing of their own: their C only
// holds sums of parts of K, where there is more than one.
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/linear/column_sums.h"
#include "cpu/mlp.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::mlp_bf16 {

struct GeluOfHBf16 {
    AddBias<float> add_bias;
    bf16 *h, *a;
    int64_t F;
    void operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        v = add_bias(v, row, column, n);
        store_part(h + row * F + column, to_bf16(v), n);
        store_part(a + row * F + column, to_bf16(vgelu<float>(v)), n);
    }
};

struct SlopeAtHBf16 {
    const bf16* h;
    bf16 *a, *dh;
    int64_t F;
    void operator()(Vec<float> da, int64_t row, int64_t column, int64_t n) const {
        Vec<float> x = to_float(load_part(h + row * F + column, n)), slope, value = vgelu_and_slope<float>(x, slope);
        store_part(a + row * F + column, to_bf16(value), n);
        store_part(dh + row * F + column, to_bf16(da * slope), n);
    }
};

template <class S>
void forward_kernel(float* out, bf16* h, const bf16* x, Matrix<S> w1, const float* b1, Matrix<S> w2, const float* b2,
                    int64_t N, int64_t C, int64_t F, int64_t D) {
    thread_local Scratch<bf16> scratch;
    thread_local Scratch<float> parts;
    int64_t most = std::min(N, MLP_ROWS);
    bf16* a = scratch.at_least(most * F);  // (rows, F)
    for (int64_t row = 0; row < N; row += MLP_ROWS) {
        int64_t rows = std::min(MLP_ROWS, N - row);
        matmul_bf16(rows, F, C, Matrix<bf16>{x + row * C, C}, w1, parts.at_least(most * F), F, false,
                    GeluOfHBf16{{b1}, h + row * F, a, F});
        matmul_bf16(rows, D, F, Matrix<bf16>{a, F}, w2, out + row * D, D, false, AddBias<float>{b2});
    }
}

template <class S>
void backward_kernel(const MlpGradients<float>& d, bool into, const float* dout, const bf16* x, Matrix<S> w1,
                     Matrix<S> w2, const bf16* h, int64_t N, int64_t C, int64_t F, int64_t D) {
    thread_local Scratch<bf16> scratch_a, scratch_dh, scratch_dout;
    thread_local Scratch<float> parts;
    int64_t most = std::min(N, MLP_ROWS);
    bf16 *a = scratch_a.at_least(most * F), *dh = scratch_dh.at_least(most * F);  // (rows, F)
    bf16* rounded_dout = scratch_dout.at_least(most * D);  // (rows, D)
    for (int64_t row = 0; row < N || row == 0; row += MLP_ROWS) {  // once for N = 0: zero gradients
        int64_t rows = std::min(MLP_ROWS, N - row);
        Matrix<bf16> doutr{rounded_dout, D};
        round_array(rounded_dout, dout + row * D, rows * D);
        bool add = into || row > 0;
        matmul_bf16(rows, F, D, doutr, w2.transpose(), parts.at_least(most * F), F, false,
                    SlopeAtHBf16{h + row * F, a, dh, F});
        if (d.w2) matmul_bf16(F, D, rows, Matrix<bf16>{a, F, true}, doutr, d.w2, D, add);
        matmul_bf16(rows, C, F, Matrix<bf16>{dh, F}, w1.transpose(), d.x + row * C, C);
        if (d.w1) matmul_bf16(C, F, rows, Matrix<bf16>{x + row * C, C, true}, Matrix<bf16>{dh, F}, d.w1, F, add);
        column_sums(d.b1, dh, rows, F, add);
        column_sums(d.b2, dout + row * D, rows, D, add);
    }
}

Tuple mlp_forward_bf16(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& proj_weight,
                       const Array& proj_bias) {
    int64_t C = last("x", x), N = x.rows();
    const float* px = input<float>("x", x, x.shape);
    check_shape("fc_weight", fc_weight, {C, ANY});
    int64_t F = fc_weight.shape[1];
    const float* b1 = input<float>("fc_bias", fc_bias, {F});
    check_shape("proj_weight", proj_weight, {F, ANY});
    int64_t D = proj_weight.shape[1];
    const float* b2 = input<float>("proj_bias", proj_bias, {D});
    auto out = fresh<float>(x.with_last(D));
    auto rounded_x = fresh<uint16_t>(x.shape), h = fresh<uint16_t>({N, F});
    bf16 *pr = (bf16*)rounded_x.data, *ph = (bf16*)h.data;
    by_weight("fc_weight", fc_weight, C, F, [&](auto w1) {
        auto w2 = weight_like(w1, "proj_weight", proj_weight, F, D);
        WithoutGil released;
        round_array(pr, px, N * C);
        forward_kernel(out.data, ph, pr, w1, b1, w2, b2, N, C, F, D);
    });
    return tuple_of({out, tuple_of({rounded_x, fc_weight, proj_weight, h})});
}

Tuple mlp_backward_bf16(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), fc_weight = cached(cache, 1), proj_weight = cached(cache, 2), h = cached(cache, 3);
    int64_t C = last("x", x), N = x.rows();
    auto* px = (const bf16*)input<uint16_t>("cached x", x, x.shape);
    check_shape("fc_weight", fc_weight, {C, ANY});
    int64_t F = fc_weight.shape[1];
    auto* ph = (const bf16*)input<uint16_t>("cached h", h, {N, F});
    check_shape("proj_weight", proj_weight, {F, ANY});
    int64_t D = proj_weight.shape[1];
    const float* pd = input<float>("dout", dout, x.with_last(D));
    auto dx = fresh<float>(x.shape);
    auto d = gradients<float>(into, {{C, F}, {F}, {F, D}, {D}});
    MlpGradients<float> to{dx, d[0], d[1], d[2], d[3]};
    by_weight("fc_weight", fc_weight, C, F, [&](auto w1) {
        auto w2 = weight_like(w1, "proj_weight", proj_weight, F, D);
        WithoutGil released;
        backward_kernel(to, !into.is_none(), pd, px, w1, w2, ph, N, C, F, D);
    });
    return tuple_of({dx, d[0], d[1], d[2], d[3]});
}

const Register registered[] = {{"mlp_forward_bf16(x, fc_weight, fc_bias, proj_weight, proj_bias)", &mlp_forward_bf16},
                               {"mlp_backward_bf16(dout, cache, into=None)", &mlp_backward_bf16}};

}  // namespace minillm::mlp_bf16
