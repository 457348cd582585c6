// The linear layer with a weight stored (out, in), its bias optional: minillm/ops/projection.py. Kernels: linear.cuh.
#include "cuda/ops/linear_layer.h"

namespace minillm::linear {

const Register projection[] = {
    {"projection_forward(x, weight, bias=None)", &layer_forward<gemm::Tiled, true>},
    {"projection_backward(dout, cache, into=None)", &layer_backward<gemm::Tiled, true>},
    {"projection_forward_bf16(x, weight, bias=None)", &layer_forward<gemm::TensorCores, true>},
    {"projection_backward_bf16(dout, cache, into=None)", &layer_backward<gemm::TensorCores, true>}};

}  // namespace minillm::linear
