// The tied head and the loss as one op. Formulas: minillm/ops/losses/linear_cross_entropy.py and cross_entropy.py.
//
//   z = x @ wte.T (N, V)      loss = logsum + (top - z[y])      dz = dout * (exp(z - top - logsum) - 1[v = y])
//   dx = dz @ wte             dwte = dz.T @ x
//
// Of each row, top (the maximum) and logsum (of exp(z - top)) stay two numbers: next to logits of 1e4 their sum would
// lose the digits of the second. The logits exist for CHUNK rows at a time. Forward: GEMM, then a block a row, in one
// pass over it (softmax.cuh). Backward: the GEMM makes the chunk again, and its epilogue makes that dz on its way to
// memory; two more GEMMs use it. dwte is added up over chunks, in order.
#pragma once

#include "cuda/ops/matmul.cuh"
#include "cuda/ops/softmax.cuh"

namespace minillm::linear_cross_entropy {

constexpr int64_t CHUNK = 2048;  // rows: 412 MB of GPT-2's logits in float, and enough tiles for every SM

struct Sizes {
    int64_t N, V, C;
    int64_t rows(int64_t first) const { return N - first < CHUNK ? N - first : CHUNK; }  // of the chunk from `first` on
    int64_t line() const {
        return (V + 7) / 8 * 8;
    }  // numbers a row of the chunk has room for: 16-byte copies reach all
    int64_t room() const { return rows(0) * line(); }
};
struct Targets {
    const int64_t* of;  // (N)
    int64_t ignore_index;
};

// One row of the chunk a block: its loss, top and logsum.
template <class T>
__global__ void row_losses(T* losses, T* tops, T* logsums, const T* logits, int64_t line, Targets targets, int64_t V) {
    SHARED(T, room);
    const int64_t row = blockIdx.x, y = targets.of[row];
    const T* z = logits + row * line;
    const auto of = softmax::log_softmax(z, V, T(1), room);
    if (threadIdx.x) return;
    tops[row] = of.top;
    logsums[row] = of.logsum;
    losses[row] = y == targets.ignore_index ? T(0) : of.logsum + (of.top - z[y]);
}

// Epilogue: sums are logits and become dz.
template <class T>
struct Dlogits {
    const T *top, *logsum, *dout;
    Targets targets;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t) const {
        const int64_t y = targets.of[row];
        const bool ignored = y == targets.ignore_index;
        const T scale = ignored ? T(0) : dout[row], t = top[row], s = logsum[row];
        UNROLL_FOR (int i = 0; i < W; i++) {
            v[i] = exp(v[i] - t - s) * scale;
            if (column + i == y && !ignored) v[i] -= scale;
        }
    }
};

// T: of arrays and sums. S: of what is multiplied, T or, in mixed precision, bf16. logits: room for n.room() numbers.
template <class Step, class T, class S>
void forward(T* losses, T* top, T* logsum, T* logits, const S* x, const S* wte, Targets targets, const Sizes& n,
             gpu::Stream stream) {
    for (int64_t row = 0; row < n.N; row += CHUNK) {
        const int64_t rows = n.rows(row);
        Step::matmul({rows, n.V, n.C}, gemm::Matrix<S>{x + row * n.C, n.C}, gemm::Transposed<S>{wte, n.C},
                     gemm::Output<T>{logits, n.line()}, stream);
        launch(row_losses<T>, dim3(unsigned(rows)), softmax::threads_for_row(n.V), softmax::MOST_WARPS * sizeof(T),
               stream_t(stream), losses + row, top + row, logsum + row, logits, n.line(),
               Targets{targets.of + row, targets.ignore_index}, n.V);
    }
}

// dwte may be null; add: it is added to. dz: room for n.room() numbers. Of no rows dwte is zero.
template <class Step, class T, class S>
void backward(T* dx, T* dwte, bool add, S* dz, const T* dout, const T* top, const T* logsum, const S* x, const S* wte,
              Targets targets, const Sizes& n, gpu::Stream stream) {
    using gemm::Matrix, gemm::Output, gemm::Transposed;
    const int64_t C = n.C, V = n.V, line = n.line();
    for (int64_t row = 0; row < n.N || row == 0; row += CHUNK) {
        const int64_t rows = n.rows(row);
        const Matrix<S> chunk = {x + row * C, C};
        Step::matmul({rows, V, C}, chunk, Transposed<S>{wte, C}, Output<S>{dz, line}, stream,
                     Dlogits<T>{top + row, logsum + row, dout + row, {targets.of + row, targets.ignore_index}});
        Step::matmul({rows, C, V}, Matrix<S>{dz, line}, Matrix<S>{wte, C}, Output<T>{dx + row * C, C}, stream);
        if (dwte)
            Step::matmul({V, C, rows}, Transposed<S>{dz, line}, chunk, Output<T>{dwte, C, add || row > 0}, stream);
    }
}

}  // namespace minillm::linear_cross_entropy
