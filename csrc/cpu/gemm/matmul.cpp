// The GEMMs that most ops use.
#include "cpu/gemm/matmul.h"

namespace minillm {

template void micro_kernel(float*, const float*, const float*, int64_t, int64_t);
template void micro_kernel(double*, const double*, const double*, int64_t, int64_t);
MATMUL(float, NoEpilogue);
MATMUL(double, NoEpilogue);
MATMUL(float, AddBias<float>);
MATMUL(double, AddBias<double>);

}  // namespace minillm
