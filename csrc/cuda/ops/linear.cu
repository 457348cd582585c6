// The linear layer, by each step of the matmul ladder. Kernels: matmul.cuh.
#include "cuda/ops/linear_layer.h"

namespace minillm::linear {

template <class Step>
Tuple linear_forward(const Array& x, const Array& weight, const Array& bias) {
    return layer_forward<Step, false>(x, weight, bias);
}

// "" is the default, "_1_naive" and so on the others.
template <class Step>
struct Variant {
    Register forward, backward;
    explicit Variant(const string& name)
        : forward("linear_forward" + name + "(x, weight, bias)", &linear_forward<Step>),
          backward("linear_backward" + name + "(dout, cache, into=None)", &layer_backward<Step, false>) {}
};
const Variant<gemm::Naive> naive("_1_naive");
const Variant<gemm::Tiled> tiled("_2_tiled"), best("");
const Variant<gemm::Mma> mma("_3_mma");
const Variant<gemm::Wgmma> wgmma("_4_wgmma");
const Variant<gemm::TensorCores> bf16("_bf16");

}  // namespace minillm::linear
