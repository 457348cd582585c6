// GeGLU on a GPU. Kernels: geglu.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/geglu.cuh"

#include "cuda/ops/activation.h"

namespace minillm::geglu {
const Register registered[] = {
    {"geglu_forward(gate, up)", &cuda::gated_forward<gelu::Gelu, false>},
    {"geglu_backward(dout, cache)", &cuda::gated_backward<gelu::Gelu, false>},
    {"geglu_forward_1_naive(gate, up)", &cuda::gated_forward<gelu::Gelu, true>},
    {"geglu_backward_1_naive(dout, cache)", &cuda::gated_backward<gelu::Gelu, true>},
};
}  // namespace minillm::geglu
