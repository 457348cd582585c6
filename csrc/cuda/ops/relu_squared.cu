// The square of ReLU, on a GPU. Kernels: relu_squared.cuh and elementwise.cuh; launchers and bindings: activation.h.
#include "cuda/ops/relu_squared.cuh"

#include "cuda/ops/activation.h"

namespace minillm::relu_squared {
const Register registered[] = {
    {"relu_squared_forward(x)", &cuda::activation_forward<ReluSquared, false>},
    {"relu_squared_backward(dout, cache)", &cuda::activation_backward<ReluSquared, false>},
    {"relu_squared_forward_1_naive(x)", &cuda::activation_forward<ReluSquared, true>},
    {"relu_squared_backward_1_naive(dout, cache)", &cuda::activation_backward<ReluSquared, true>},
};
}  // namespace minillm::relu_squared
