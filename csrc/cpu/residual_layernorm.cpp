// The residual connection and the LayerNorm after it as one op. Formulas: minillm/ops/residual_layernorm.py.
//
//   s  = x + y                out = layernorm(s)
//   ds = dsum + dx            dx: layernorm's, from dout
//
// The kernels are layernorm.cpp's: a row of s is still in L1 when it is normalised, so the sum costs no pass over memory.
#include "cpu/layernorm.h"
#include "python/register.h"

namespace minillm::residual_layernorm {

Tuple residual_layernorm_forward(const Array& x, const Array& y, const Array& weight, const Array& bias, double eps) {
    Tuple made = layernorm::forward(x, y, weight, bias, eps);
    return tuple_of({tuple_of({made[0], made[1]}), made[2]});
}

Tuple residual_layernorm_backward(const Tuple& douts, const Tuple& cache, const Object& into) {
    if (douts.size() != 2) fail("douts must be (dsum, dout)");
    Tuple d = layernorm::backward(douts[0], argument<Array>(douts[1], "dout"), cache, into);
    return tuple_of({d[0], d[0], d[1], d[2]});
}

const Register registered[] = {
    {"residual_layernorm_forward(x, y, weight, bias, eps=1e-5)", &residual_layernorm_forward},
    {"residual_layernorm_backward(douts, cache, into=None)", &residual_layernorm_backward}};

}  // namespace minillm::residual_layernorm
