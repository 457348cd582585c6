// The residual addition and the RMSNorm after it, on a GPU. Kernels: norm.cuh and norm_naive.cuh; the rest: norm.cu.
#include "cuda/ops/residual_rmsnorm.cuh"

#include "cuda/ops/norm.h"
#include "python/register.h"

namespace minillm::residual_rmsnorm {
namespace {
template <bool NAIVE>
Tuple residual_rmsnorm_forward(const Array& x, const Array& y, const Array& weight, double eps) {
    const Tuple made = cuda::norm_forward<false, NAIVE>(x, &y, weight, nullptr, eps);
    return tuple_of({tuple_of({made[0], made[1]}), made[2]});
}

template <bool NAIVE>
Tuple residual_rmsnorm_backward(const Tuple& douts, const Tuple& cache, const Object& into) {
    if (douts.size() != 2) fail("douts must be (dsum, dout)");
    const Tuple d = cuda::norm_backward<false, NAIVE>(douts[0], argument<Array>(douts[1], "dout"), cache, into);
    return tuple_of({d[0], d[0], d[1]});
}

const Register registered[] = {
    {"residual_rmsnorm_forward(x, y, weight, eps=1e-6)", &residual_rmsnorm_forward<false>},
    {"residual_rmsnorm_backward(douts, cache, into=None)", &residual_rmsnorm_backward<false>},
    {"residual_rmsnorm_forward_1_naive(x, y, weight, eps=1e-6)", &residual_rmsnorm_forward<true>},
    {"residual_rmsnorm_backward_1_naive(douts, cache, into=None)", &residual_rmsnorm_backward<true>},
};
}  // namespace
}  // namespace minillm::residual_rmsnorm
