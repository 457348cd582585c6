// GELU, the exact form, on a GPU. Kernels: gelu_exact.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/gelu_exact.cuh"

#include "cuda/ops/activation.h"

namespace minillm::gelu_exact {
const Register registered[] = {
    {"gelu_exact_forward(x)", &cuda::activation_forward<GeluExact, false>},
    {"gelu_exact_backward(dout, cache)", &cuda::activation_backward<GeluExact, false>},
    {"gelu_exact_forward_1_naive(x)", &cuda::activation_forward<GeluExact, true>},
    {"gelu_exact_backward_1_naive(dout, cache)", &cuda::activation_backward<GeluExact, true>},
};
}  // namespace minillm::gelu_exact
