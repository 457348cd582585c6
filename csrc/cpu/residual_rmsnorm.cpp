// The residual connection and the RMSNorm after it as one op. Formulas: minillm/ops/residual_rmsnorm.py.
//
//   s  = x + y                out = rmsnorm(s)
//   ds = dsum + dx            dx: rmsnorm's, from dout
//
// The kernels are rmsnorm.cpp's: a row of s is still in L1 when it is normalised, so the sum costs no pass over memory.
#include "cpu/rmsnorm.h"
#include "python/register.h"

namespace minillm::residual_rmsnorm {

Tuple residual_rmsnorm_forward(const Array& x, const Array& y, const Array& weight, double eps) {
    Tuple made = rmsnorm::forward(x, y, weight, eps);
    return tuple_of({tuple_of({made[0], made[1]}), made[2]});
}

Tuple residual_rmsnorm_backward(const Tuple& douts, const Tuple& cache, const Object& into) {
    if (douts.size() != 2) fail("douts must be (dsum, dout)");
    Tuple d = rmsnorm::backward(douts[0], argument<Array>(douts[1], "dout"), cache, into);
    return tuple_of({d[0], d[0], d[1]});
}

const Register registered[] = {{"residual_rmsnorm_forward(x, y, weight, eps=1e-6)", &residual_rmsnorm_forward},
                               {"residual_rmsnorm_backward(douts, cache, into=None)", &residual_rmsnorm_backward}};

}  // namespace minillm::residual_rmsnorm
