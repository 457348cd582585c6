// A frozen linear layer with a low-rank update. Formulas: minillm/ops/lora_linear.py; kernels: linear/low_rank_layer.h.
#include "cpu/linear/low_rank_layer.h"

namespace minillm::low_rank {

const Register registered[] = {
    {"lora_linear_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))", &forward_any<false>},
    {"lora_linear_backward(dout, cache, into=None)", &backward_any<false>},
    {"lora_linear_forward_bf16(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))", &forward<float, bf16, false>},
    {"lora_linear_backward_bf16(dout, cache, into=None)", &backward<float, bf16, false>}};

}  // namespace minillm::low_rank
