// The output head: logits for every token of the vocabulary. Formula: minillm/ops/head.py. One GEMM of the form NT.
//
//   logits = x @ wte.T         x (N, C), wte (V, C)
#include "cuda/ops/matmul.cuh"
#include "cuda/ops/operands.h"

namespace minillm::head {

Object head(const Array& x, const Array& wte) {
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const int64_t C = last("x", x), N = x.rows();
        const T *px = on.input<T>("x", x, x.shape), *pw = on.input<T>("wte", wte, {ANY, C});
        const int64_t V = wte.shape[0];
        auto logits = on.fresh<T>(x.with_last(V));
        on.run([&](gpu::Stream stream) {
            gemm::Tiled::matmul({N, V, C}, gemm::Matrix<T>{px, C}, gemm::Transposed<T>{pw, C},
                                gemm::Output<T>{logits, V}, stream);
        });
        return logits;
    });
}

const Register registered("head(x, wte)", &head);

}  // namespace minillm::head
