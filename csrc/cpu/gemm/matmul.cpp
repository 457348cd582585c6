// The GEMMs that most ops use.
#include "cpu/gemm/matmul.h"

namespace minillm {

MATMUL(float, NoEpilogue)
MATMUL(double, NoEpilogue)
MATMUL(float, AddBias<float>)
MATMUL(double, AddBias<double>)

}  // namespace minillm
