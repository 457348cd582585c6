// The residual addition and the LayerNorm after it, on a GPU. Kernels: norm.cuh and norm_naive.cuh; the rest: norm.cu.
#include "cuda/ops/residual_layernorm.cuh"

#include "cuda/ops/norm.h"
#include "python/register.h"

namespace minillm::residual_layernorm {
namespace {
template <bool NAIVE>
Tuple residual_layernorm_forward(const Array& x, const Array& y, const Array& weight, const Array& bias, double eps) {
    const Tuple made = cuda::norm_forward<true, NAIVE>(x, &y, weight, &bias, eps);
    return tuple_of({tuple_of({made[0], made[1]}), made[2]});
}

template <bool NAIVE>
Tuple residual_layernorm_backward(const Tuple& douts, const Tuple& cache, const Object& into) {
    if (douts.size() != 2) fail("douts must be (dsum, dout)");
    const Tuple d = cuda::norm_backward<true, NAIVE>(douts[0], argument<Array>(douts[1], "dout"), cache, into);
    return tuple_of({d[0], d[0], d[1], d[2]});
}

const Register registered[] = {
    {"residual_layernorm_forward(x, y, weight, bias, eps=1e-5)", &residual_layernorm_forward<false>},
    {"residual_layernorm_backward(douts, cache, into=None)", &residual_layernorm_backward<false>},
    {"residual_layernorm_forward_1_naive(x, y, weight, bias, eps=1e-5)", &residual_layernorm_forward<true>},
    {"residual_layernorm_backward_1_naive(douts, cache, into=None)", &residual_layernorm_backward<true>},
};
}  // namespace
}  // namespace minillm::residual_layernorm
