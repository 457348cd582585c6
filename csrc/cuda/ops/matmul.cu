// The usual matmuls, compiled once for all ops.
#include "cuda/ops/matmul.cuh"

namespace minillm::gemm {

MATMULS(, Tiled, float, float);
MATMULS(, Tiled, double, double);
MATMULS(, Mma, bf16, float);

}  // namespace minillm::gemm
