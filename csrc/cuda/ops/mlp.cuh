// The MLP of a block as one op. Formulas: minillm/ops/mlp.py.
//
//   h = x @ W1 + b1 (N, F)      a = gelu(h) (N, F)      out = a @ W2 + b2
//   dh = (dout @ W2.T) * gelu'(h)      dW2 = a.T @ dout      dx = dh @ W1.T      dW1 = x.T @ dh
//
// GELU is the epilogue of the GEMM before it: forward, sums become h, which is kept, and a at once; back, the sums of
// dout @ W2.T meet h and become dh, and a is made again. So only h is cached, and da is never stored.
#pragma once

#include "cuda/ops/column_sums.cuh"
#include "cuda/ops/gelu.cuh"
#include "cuda/ops/matmul.cuh"

namespace minillm::mlp {

using gelu::Gelu;

// Sums and the bias are h, which goes to memory, and become gelu(h). S: how h is stored.
template <class T, class S>
struct GeluOfH {
    gemm::AddBias<T> add_bias;
    S* h;
    int64_t F;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t n) const {
        add_bias(v, row, column, n);
        gemm::store_numbers(h + row * F + column, v, n);
        UNROLL_FOR (int i = 0; i < W; i++) v[i] = Gelu::value(v[i]);
    }
};

// Sums are da and become dh; a goes to memory.
template <class T, class S>
struct SlopeAtH {
    const S* h;
    S* a;
    int64_t F;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t n) const {
        T x[W];
        gemm::load_numbers(x, h + row * F + column, n);
        UNROLL_FOR (int i = 0; i < W; i++) {
            v[i] *= Gelu::slope(x[i]);
            x[i] = Gelu::value(x[i]);
        }
        gemm::store_numbers(a + row * F + column, x, n);
    }
};

// x (N, C), W1 (C, F), W2 (F, D).
struct Sizes {
    int64_t N, C, F, D;
    int64_t sums_room() const { return gemm::slabs_of(N) * (F > D ? F : D); }
};

// T: of arrays and sums. S: of what is multiplied and stays between matmuls, T or, in mixed precision, bf16.
// a: room for (N, F).
template <class Step, class T, class S>
void forward(T* out, S* h, S* a, const S* x, const S* w1, const T* b1, const S* w2, const T* b2, const Sizes& n,
             gpu::Stream stream) {
    using gemm::Matrix, gemm::Output;
    Step::matmul({n.N, n.F, n.C}, Matrix<S>{x, n.C}, Matrix<S>{w1, n.F}, Output<S>{a, n.F}, stream,
                 GeluOfH<T, S>{{b1}, h, n.F});
    Step::matmul({n.N, n.D, n.F}, Matrix<S>{a, n.F}, Matrix<S>{w2, n.D}, Output<T>{out, n.D}, stream,
                 gemm::AddBias<T>{b2});
}

// All but x may be null.
template <class T>
struct Gradients {
    T *x, *w1, *b1, *w2, *b2;
};

// dout comes twice, as it is multiplied and as it is added up. add: gradients of weights and biases are added to.
// a, dh: room for (N, F); sums: for sums_room().
template <class Step, class T, class S>
void backward(const Gradients<T>& d, bool add, S* a, S* dh, T* sums, const S* dout, const T* exact_dout, const S* x,
              const S* h, const S* w1, const S* w2, const Sizes& n, gpu::Stream stream) {
    using gemm::Matrix, gemm::Output, gemm::Transposed;
    Step::matmul({n.N, n.F, n.D}, Matrix<S>{dout, n.D}, Transposed<S>{w2, n.D}, Output<S>{dh, n.F}, stream,
                 SlopeAtH<T, S>{h, a, n.F});
    if (d.w2)
        Step::matmul({n.F, n.D, n.N}, Transposed<S>{a, n.F}, Matrix<S>{dout, n.D}, Output<T>{d.w2, n.D, add}, stream);
    Step::matmul({n.N, n.C, n.F}, Matrix<S>{dh, n.F}, Transposed<S>{w1, n.F}, Output<T>{d.x, n.C}, stream);
    if (d.w1)
        Step::matmul({n.C, n.F, n.N}, Transposed<S>{x, n.C}, Matrix<S>{dh, n.F}, Output<T>{d.w1, n.F, add}, stream);
    gemm::column_sums(d.b1, dh, n.N, n.F, add, sums, stream);
    gemm::column_sums(d.b2, exact_dout, n.N, n.D, add, sums, stream);
}

}  // namespace minillm::mlp
