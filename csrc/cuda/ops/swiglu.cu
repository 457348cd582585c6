// SwiGLU on a GPU. Kernels: swiglu.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/swiglu.cuh"

#include "cuda/ops/activation.h"

namespace minillm::swiglu {
const Register registered[] = {
    {"swiglu_forward(gate, up)", &cuda::gated_forward<Silu, false>},
    {"swiglu_backward(dout, cache)", &cuda::gated_backward<Silu, false>},
    {"swiglu_forward_1_naive(gate, up)", &cuda::gated_forward<Silu, true>},
    {"swiglu_backward_1_naive(dout, cache)", &cuda::gated_backward<Silu, true>},
};
}  // namespace minillm::swiglu
