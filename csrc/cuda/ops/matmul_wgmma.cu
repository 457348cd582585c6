// Step 4 of the matmul ladder, for the epilogues of all ops: compiled for sm_90a alone.
#include "cuda/ops/linear_cross_entropy.cuh"
#include "cuda/ops/matmul/4_wgmma.cuh"
#include "cuda/ops/mlp.cuh"

namespace minillm::gemm {

#define WGMMA(C, A, B, EPILOGUE) \
    template void launch_wgmma(const Sizes&, A<bf16>, B<bf16>, Output<C>, gpu::Stream, EPILOGUE)
using GeluOfH = mlp::GeluOfH<float, bf16>;
using SlopeAtH = mlp::SlopeAtH<float, bf16>;

WGMMA(float, Matrix, Matrix, Plain);
WGMMA(float, Matrix, Matrix, AddBias<float>);
WGMMA(float, Matrix, Transposed, Plain);
WGMMA(float, Matrix, Transposed, AddBias<float>);
WGMMA(float, Transposed, Matrix, Plain);
WGMMA(bf16, Matrix, Matrix, GeluOfH);
WGMMA(bf16, Matrix, Transposed, SlopeAtH);
WGMMA(bf16, Matrix, Transposed, linear_cross_entropy::Dlogits<float>);

}  // namespace minillm::gemm
