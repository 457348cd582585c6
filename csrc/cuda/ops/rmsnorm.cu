// RMSNorm on a GPU. Kernels: norm.cuh and norm_naive.cuh; the rest: norm.cu.
#include "cuda/ops/rmsnorm.cuh"

#include "cuda/ops/norm.h"
#include "python/register.h"

namespace minillm::rmsnorm {
namespace {
template <bool NAIVE>
Tuple rmsnorm_forward(const Array& x, const Array& weight, double eps) {
    const Tuple made = cuda::norm_forward<false, NAIVE>(x, nullptr, weight, nullptr, eps);
    return tuple_of({made[1], made[2]});
}

template <bool NAIVE>
Tuple rmsnorm_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return cuda::norm_backward<false, NAIVE>(Object(), dout, cache, into);
}

const Register registered[] = {{"rmsnorm_forward(x, weight, eps=1e-6)", &rmsnorm_forward<false>},
                               {"rmsnorm_backward(dout, cache, into=None)", &rmsnorm_backward<false>},
                               {"rmsnorm_forward_1_naive(x, weight, eps=1e-6)", &rmsnorm_forward<true>},
                               {"rmsnorm_backward_1_naive(dout, cache, into=None)", &rmsnorm_backward<true>}};
}  // namespace
}  // namespace minillm::rmsnorm
