// The linear layer in mixed precision: matmuls in bfloat16. Formulas: minillm/ops/linear.py; the GEMM: gemm/bf16.h.
//
// x, weight and dout arrive in float and are rounded on their way into the matmuls; sums, biases and results are float. The
// backward needs x only for a matmul, so the cache keeps it rounded: half the memory. A weight may arrive as its bf16 copy.
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/linear/column_sums.h"
#include "python/register.h"

namespace minillm::linear_bf16 {

Tuple linear_forward_bf16(const Array& x, const Array& weight, const Array& bias) {
    int64_t I = last("x", x), N = x.rows();
    const float* px = input<float>("x", x, x.shape);
    const Operand w = operand_of("weight", weight, {I, ANY});
    int64_t J = weight.shape[1];
    const float* pb = input<float>("bias", bias, {J});
    auto out = fresh<float>(x.with_last(J));
    auto rounded_x = fresh<uint16_t>(x.shape);
    bf16* pr = (bf16*)rounded_x.data;
    without_gil([&] {
        round_array(pr, px, N * I);
        matmul_bf16(N, J, I, Matrix<bf16>{pr, I}, w, out.data, J, false, AddBias<float>{pb});
    });
    return tuple_of({out, tuple_of({rounded_x, weight})});
}

Tuple linear_backward_bf16(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1);
    int64_t I = last("x", x), N = x.rows();
    auto* px = (const bf16*)input<uint16_t>("cached x", x, x.shape);
    const Operand w = operand_of("weight", weight, {I, ANY});
    int64_t J = weight.shape[1];
    const float* pd = input<float>("dout", dout, x.with_last(J));
    auto dx = fresh<float>(x.shape);
    auto d = gradients<float>(into, {{I, J}, {J}});  // dweight, dbias
    bool add = !into.is_none();
    without_gil([&] {
        thread_local Scratch<bf16> scratch;
        bf16* rounded_dout = scratch.at_least(N * J);
        round_array(rounded_dout, pd, N * J);
        matmul_bf16(N, I, J, Matrix<bf16>{rounded_dout, J}, w.transpose(), dx.data, I);
        if (d[0].data)
            matmul_bf16(I, J, N, Matrix<bf16>{px, I, true}, Matrix<bf16>{rounded_dout, J}, d[0].data, J, add);
        column_sums<float>(d[1], pd, N, J, add);
    });
    return tuple_of({dx, d[0], d[1]});
}

const Register registered[] = {{"linear_forward_bf16(x, weight, bias)", &linear_forward_bf16},
                               {"linear_backward_bf16(dout, cache, into=None)", &linear_backward_bf16}};

}  // namespace minillm::linear_bf16
