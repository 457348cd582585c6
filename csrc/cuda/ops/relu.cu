// ReLU, on a GPU. Kernels: relu.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/relu.cuh"

#include "cuda/ops/activation.h"

namespace minillm::relu {
const Register registered[] = {
    {"relu_forward(x)", &cuda::activation_forward<Relu, false>},
    {"relu_backward(dout, cache)", &cuda::activation_backward<Relu, false>},
    {"relu_forward_1_naive(x)", &cuda::activation_forward<Relu, true>},
    {"relu_backward_1_naive(dout, cache)", &cuda::activation_backward<Relu, true>},
};
}  // namespace minillm::relu
