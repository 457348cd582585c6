// Token and position embedding. Formulas: minillm/ops/embedding.py.
//
//   out[b, t]          = wte[tokens[b, t]] + wpe[start + t]
//   dwte[tokens[b, t]] += dout[b, t]          dwpe[start + t] += dout[b, t]
//
// Step 1, naive: forward a thread a number, with two 64-bit divisions for each. Backward: a thread a column.
// Step 2: forward a warp a row of out, four numbers a lane, so a row's place is found once. Backward: dwte as scatter.cuh
// tells; dwpe has no scatter in it, since position p has the tokens of place p - start of every sequence: a thread for
// four numbers, which walks over the sequences in order.
#pragma once

#include "cuda/ops/scatter.cuh"

namespace minillm::embedding {
using namespace scatter;

struct Sizes { int64_t B, S, C, start, rows = B * S; };

template <class T>
__global__ void naive_embedding_forward(T* out, const int64_t* tokens, const T* wte, const T* wpe, Sizes n) {
    const int64_t i = thread_number(), row = i / n.C, c = i % n.C;
    if (row < n.rows) out[i] = wte[tokens[row] * n.C + c] + wpe[(n.start + row % n.S) * n.C + c];
}
template <class T>
__global__ void naive_positions_backward(T* dwpe, const T* dout, Sizes n) {
    const int64_t c = thread_number();
    if (c >= n.C) return;
    for (int64_t row = 0; row < n.rows; row++) dwpe[(n.start + row % n.S) * n.C + c] += dout[row * n.C + c];
}

// wpe: or null, for tokens alone.
template <class T>
__global__ void embedding_forward(T* out, const int64_t* tokens, const T* wte, const T* wpe, Sizes n, bool aligned) {
    const int64_t row = thread_number() / 32;
    if (row >= n.rows) return;
    const T *te = wte + tokens[row] * n.C, *pe = wpe ? wpe + (n.start + row % n.S) * n.C : nullptr;
    for (int64_t c = threadIdx.x % 32 * 4; c < n.C; c += 128) {
        Vec4<T> x = row_of(te, n.C, aligned).get(c);
        if (pe) x = map4([](T a, T b) { return a + b; }, x, row_of(pe, n.C, aligned).get(c));
        row_of(out + row * n.C, n.C, aligned).put(c, x);
    }
}
template <class T>
__global__ void positions_backward(T* dwpe, const T* dout, Sizes n, bool aligned) {
    const int64_t i = 4 * thread_number(), size = n.S * n.C;  // of (S, C), flat
    if (i >= size) return;
    const Row<T> to = row_of(dwpe + n.start * n.C, size, aligned);
    Vec4<T> sum = to.get(i);
    UNROLL_4_FOR (int64_t b = 0; b < n.B; b++)
        sum = map4([](T a, T d) { return a + d; }, sum, row_of(dout + b * size, size, aligned).get(i));
    to.put(i, sum);
}
}  // namespace minillm::embedding
