// GELU, the tanh form, on a GPU. Kernels: gelu.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/gelu.cuh"

#include "cuda/ops/activation.h"

namespace minillm::gelu {
const Register registered[] = {
    {"gelu_forward(x)", &cuda::activation_forward<Gelu, false>},
    {"gelu_backward(dout, cache)", &cuda::activation_backward<Gelu, false>},
    {"gelu_forward_1_naive(x)", &cuda::activation_forward<Gelu, true>},
    {"gelu_backward_1_naive(dout, cache)", &cuda::activation_backward<Gelu, true>},
};
}  // namespace minillm::gelu
