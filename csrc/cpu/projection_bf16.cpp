// projection.cpp in mixed precision: matmuls in bfloat16, sums, bias and results in float. The GEMM: gemm/bf16.h.
//
// As in linear/bf16.cpp the cache keeps x rounded, and a weight may arrive as its bf16 copy.
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/linear/column_sums.h"
#include "python/register.h"

namespace minillm::projection_bf16 {

Tuple projection_forward_bf16(const Array& x, const Array& weight, const Object& bias) {
    int64_t I = last("x", x), N = x.rows();
    const float* px = input<float>("x", x, x.shape);
    const Operand w = operand_of("weight", weight, {ANY, I}).transpose();
    int64_t J = weight.shape[0];
    const float* pb = bias.is_none() ? nullptr : input<float>("bias", argument<Array>(bias, "bias"), {J});
    auto out = fresh<float>(x.with_last(J));
    auto rounded_x = fresh<uint16_t>(x.shape);
    bf16* pr = (bf16*)rounded_x.data;
    without_gil([&] {
        round_array(pr, px, N * I);
        Matrix<bf16> a{pr, I};
        if (pb) matmul_bf16(N, J, I, a, w, out.data, J, false, AddBias<float>{pb});
        else matmul_bf16(N, J, I, a, w, out.data, J);
    });
    return tuple_of({out, tuple_of({rounded_x, weight})});
}

Tuple projection_backward_bf16(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1);
    int64_t I = last("x", x), N = x.rows();
    auto* px = (const bf16*)input<uint16_t>("cached x", x, x.shape);
    const Operand w = operand_of("weight", weight, {ANY, I});
    int64_t J = weight.shape[0];
    const float* pd = input<float>("dout", dout, x.with_last(J));
    auto dx = fresh<float>(x.shape);
    auto d = gradients<float>(into, {{J, I}, {J}});  // dweight, dbias
    bool add = !into.is_none();
    without_gil([&] {
        thread_local Scratch<bf16> scratch;
        bf16* rounded_dout = scratch.at_least(N * J);
        round_array(rounded_dout, pd, N * J);
        matmul_bf16(N, I, J, Matrix<bf16>{rounded_dout, J}, w, dx.data, I);
        if (d[0].data)
            matmul_bf16(J, I, N, Matrix<bf16>{rounded_dout, J, true}, Matrix<bf16>{px, I}, d[0].data, I, add);
        column_sums<float>(d[1], pd, N, J, add);
    });
    return tuple_of({dx, d[0], d[1]});
}

const Register registered[] = {{"projection_forward_bf16(x, weight, bias=None)", &projection_forward_bf16},
                               {"projection_backward_bf16(dout, cache, into=None)", &projection_backward_bf16}};

}  // namespace minillm::projection_bf16
