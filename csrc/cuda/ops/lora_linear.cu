// A frozen linear layer with a low-rank update. Formulas: minillm/ops/lora_linear.py; kernels: low_rank.cuh.
#include "cuda/ops/low_rank_layer.h"

namespace minillm::low_rank {

const Register linear[] = {
    {"lora_linear_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))", &lora_forward<false>},
    {"lora_linear_backward(dout, cache, into=None)", &lora_backward<false>}};

}  // namespace minillm::low_rank
