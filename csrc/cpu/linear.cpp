// The linear layer. Formulas and derivation: minillm/ops/linear.py.
//
//   out = x @ weight + bias        x (N, I), weight (I, J)
//   dx  = dout @ weight.T          dweight = x.T @ dout          dbias = sum of dout over rows
//
// Three GEMMs; gemm/gemm.h explains loop order and parallelism. The bias is the epilogue of the first: added while the tile
// of `out` is still in L1. Slower ways to the same numbers, each a step of the ladder to this one, are in linear/.
#include "cpu/gemm/matmul.h"
#include "cpu/linear/layer.h"

namespace minillm::linear {

template <class T>
struct Linear {
    static void forward(T* out, const T* x, const T* weight, const T* bias, int64_t N, int64_t I, int64_t J) {
        matmul<T>(N, J, I, {x, I}, {weight, J}, out, J, false, AddBias<T>{bias});
    }

    // add: dweight and dbias are added to. Either may be null.
    static void backward(T* dx, T* dweight, T* dbias, bool add, const T* dout, const T* x, const T* weight, int64_t N,
                         int64_t I, int64_t J) {
        matmul<T>(N, I, J, {dout, J}, {weight, J, true}, dx, I);
        if (dweight) matmul<T>(I, J, N, {x, I, true}, {dout, J}, dweight, J, add);
        column_sums(dbias, dout, N, J, add);
    }
};

const Variant<Linear> registered("");

}  // namespace minillm::linear
