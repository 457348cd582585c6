// The ladder to a fast matmul, one idea a step. All compute what linear.cpp computes; what each idea buys is shown by
// `python -m benchmarks linear --ladder`.
//
//   1_naive     the definition: three loops, one sum at a time
//   2_blocked   the loops reordered, so that memory is read along its rows, and cut, so that a block of B is read from
//               cache many times before it is dropped
//   3_simd      a tile of C in vector registers, so that a number loaded is used for several multiply-adds
//   4_amx       a register that is itself a tile, of bfloat16: one instruction does 8,192 multiply-adds (isa/amx.h)
//   (default)   step 3 again: a larger tile, both operands packed in the order it reads them, block sizes that fit the
//               caches: gemm/gemm.h
#pragma once

#include "cpu/gemm/gemm.h"
#include "cpu/linear/layer.h"

namespace minillm::linear {

// The steps after the first run along rows of memory, so a transposed operand is first written out as it is seen.
template <class T>
std::vector<T> straightened(Matrix<T>& A, int64_t rows, int64_t columns) {
    if (!A.transposed) return {};
    std::vector<T> straight(rows * columns);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) straight[i * columns + j] = A.data[j * A.stride + i];
    A = {straight.data(), columns};
    return straight;
}

// A step's matmul as a linear layer.
template <class Step, class T>
struct StepLayer {
    static void forward(T* out, const T* x, const T* weight, const T* bias, int64_t N, int64_t I, int64_t J) {
        Step::template matmul<T>(out, {x, I}, {weight, J}, N, J, I);
        for (int64_t n = 0; n < N; n++)
            for (int64_t j = 0; j < J; j++) out[n * J + j] += bias[j];
    }

    static void backward(T* dx, T* dweight, T* dbias, bool add, const T* dout, const T* x, const T* weight, int64_t N,
                         int64_t I, int64_t J) {
        Step::template matmul<T>(dx, {dout, J}, {weight, J, true}, N, I, J);
        column_sums(dbias, dout, N, J, add);
        if (!dweight) return;
        std::vector<T> before(dweight, dweight + (add ? I * J : 0));             // a step knows no other way to add
        Step::template matmul<T>(dweight, {x, I, true}, {dout, J}, I, J, N);
        for (size_t i = 0; i < before.size(); i++) dweight[i] += before[i];
    }
};

}  // namespace minillm::linear
