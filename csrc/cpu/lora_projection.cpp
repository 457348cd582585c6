// lora_linear.cpp with weights stored (out, in). Formulas: minillm/ops/lora_projection.py; kernels: linear/low_rank_layer.h.
#include "cpu/linear/low_rank_layer.h"

namespace minillm::low_rank {

const Register registered_projections[] = {
    {"lora_projection_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))", &forward_any<true>},
    {"lora_projection_backward(dout, cache, into=None)", &backward_any<true>},
    {"lora_projection_forward_bf16(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))",
     &forward<float, bf16, true>},
    {"lora_projection_backward_bf16(dout, cache, into=None)", &backward<float, bf16, true>}};

}  // namespace minillm::low_rank
