// LayerNorm on a GPU. Kernels: norm.cuh and norm_naive.cuh; the rest: norm.cu.
#include "cuda/ops/layernorm.cuh"

#include "cuda/ops/norm.h"
#include "python/register.h"

namespace minillm::layernorm {
namespace {
template <bool NAIVE>
Tuple layernorm_forward(const Array& x, const Array& weight, const Array& bias, double eps) {
    const Tuple made = cuda::norm_forward<true, NAIVE>(x, nullptr, weight, &bias, eps);
    return tuple_of({made[1], made[2]});
}

template <bool NAIVE>
Tuple layernorm_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return cuda::norm_backward<true, NAIVE>(Object(), dout, cache, into);
}

const Register registered[] = {
    {"layernorm_forward(x, weight, bias, eps=1e-5)", &layernorm_forward<false>},
    {"layernorm_backward(dout, cache, into=None)", &layernorm_backward<false>},
    {"layernorm_forward_1_naive(x, weight, bias, eps=1e-5)", &layernorm_forward<true>},
    {"layernorm_backward_1_naive(dout, cache, into=None)", &layernorm_backward<true>},
};
}  // namespace
}  // namespace minillm::layernorm
