// lora_linear.cu with weights stored (out, in). Formulas: minillm/ops/lora_projection.py; kernels: low_rank.cuh.
#include "cuda/ops/low_rank_layer.h"

namespace minillm::low_rank {

const Register projection[] = {
    {"lora_projection_forward(x, weight, bias, a, b, scale=1.0, p=0.0, key=(0, 0, 0))", &lora_forward<true>},
    {"lora_projection_backward(dout, cache, into=None)", &lora_backward<true>}};

}  // namespace minillm::low_rank
