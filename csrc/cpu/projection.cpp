// The linear layer with a weight stored (out, in), its bias optional. Formulas: minillm/ops/projection.py.
//
//   out = x @ weight.T + bias      x (N, I), weight (J, I)
//   dx  = dout @ weight            dweight = dout.T @ x          dbias = sum of dout over rows
//
// Three GEMMs, as in linear.cpp, that read the weight by columns where that one reads it by rows.
#include "cpu/gemm/matmul.h"
#include "cpu/linear/column_sums.h"
#include "python/register.h"

namespace minillm::projection {

template <class T>
void forward_kernel(T* out, const T* x, const T* weight, const T* bias, int64_t N, int64_t I, int64_t J) {
    if (bias) matmul<T>(N, J, I, {x, I}, {weight, I, true}, out, J, false, AddBias<T>{bias});
    else matmul<T>(N, J, I, {x, I}, {weight, I, true}, out, J);
}

// add: dweight and dbias are added to. Either may be null.
template <class T>
void backward_kernel(T* dx, T* dweight, T* dbias, bool add, const T* dout, const T* x, const T* weight, int64_t N,
                     int64_t I, int64_t J) {
    matmul<T>(N, I, J, {dout, J}, {weight, I}, dx, I);
    if (dweight) matmul<T>(J, I, N, {dout, J, true}, {x, I}, dweight, I, add);
    column_sums(dbias, dout, N, J, add);
}

Tuple projection_forward(const Array& x, const Array& weight, const Object& bias) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t I = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {ANY, I});
        int64_t J = weight.shape[0];
        const T* pb = bias.is_none() ? nullptr : input<T>("bias", argument<Array>(bias, "bias"), {J});
        auto out = fresh<T>(x.with_last(J));
        without_gil([&] { forward_kernel<T>(out, px, pw, pb, N, I, J); });
        return tuple_of({out, tuple_of({x, weight})});
    });
}

Tuple projection_backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t I = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {ANY, I});
        int64_t J = weight.shape[0];
        const T* pd = input<T>("dout", dout, x.with_last(J));
        auto dx = fresh<T>(x.shape);
        auto d = gradients<T>(into, {{J, I}, {J}});  // dweight, dbias
        without_gil([&] { backward_kernel<T>(dx, d[0], d[1], !into.is_none(), pd, px, pw, N, I, J); });
        return tuple_of({dx, d[0], d[1]});
    });
}

const Register registered[] = {{"projection_forward(x, weight, bias=None)", &projection_forward},
                               {"projection_backward(dout, cache, into=None)", &projection_backward}};

}  // namespace minillm::projection
