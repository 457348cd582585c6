// The linear layer. Formulas and derivation: minillm/ops/linear.py.
//
//   out = x @ weight + bias        x (N, I), weight (I, J)
//   dx  = dout @ weight.T          dweight = x.T @ dout          dbias = sum of dout over rows
//
// Three GEMMs (matmul.cuh): NN with the bias as its epilogue, NT, and TN, which may add to what dweight holds. The
// projection (minillm/ops/projection.py) stores its weight (J, I): the same three with the weight read the other way.
// T: of arrays and sums. S: of what is multiplied, T or, in mixed precision, bf16.
#pragma once

#include "cuda/ops/column_sums.cuh"
#include "cuda/ops/matmul.cuh"

namespace minillm::linear {

struct Layer {
    int64_t N, I, J;
    int64_t sums_room() const { return gemm::slabs_of(N) * J; }
};

template <class Step, bool TRANSPOSED, class T, class S>
void forward(T* out, const S* x, const S* weight, const T* bias, const Layer& n, gpu::Stream stream) {
    const gemm::Matrix<S, TRANSPOSED> w = {weight, TRANSPOSED ? n.I : n.J};
    Step::matmul({n.N, n.J, n.I}, gemm::Matrix<S>{x, n.I}, w, gemm::Output<T>{out, n.J}, stream,
                 gemm::AddBias<T>{bias});
}

// dout comes twice, as it is multiplied and as it is added up. add: dweight and dbias are added to. Either may be null.
template <class Step, bool TRANSPOSED, class T, class S>
void backward(T* dx, T* dweight, T* dbias, bool add, T* sums, const S* dout, const T* exact_dout, const S* x,
              const S* weight, const Layer& n, gpu::Stream stream) {
    using gemm::Matrix, gemm::Output, gemm::Transposed;
    const Matrix<S, !TRANSPOSED> w = {weight, TRANSPOSED ? n.I : n.J};
    Step::matmul({n.N, n.I, n.J}, Matrix<S>{dout, n.J}, w, Output<T>{dx, n.I}, stream);
    if (dweight && TRANSPOSED)
        Step::matmul({n.J, n.I, n.N}, Transposed<S>{dout, n.J}, Matrix<S>{x, n.I}, Output<T>{dweight, n.I, add},
                     stream);
    if (dweight && !TRANSPOSED)
        Step::matmul({n.I, n.J, n.N}, Transposed<S>{x, n.I}, Matrix<S>{dout, n.J}, Output<T>{dweight, n.J, add},
                     stream);
    gemm::column_sums(dbias, exact_dout, n.N, n.J, add, sums, stream);
}

}  // namespace minillm::linear
