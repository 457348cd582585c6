// The MLP of a block as one op. Formulas: minillm/ops/mlp.py.
//
//   h = x @ W1 + b1 (N, F)      a = gelu(h) (N, F)      out = a @ W2 + b2
//   dh = (dout @ W2.T) * gelu'(h)      dW2 = a.T @ dout      dx = dh @ W1.T      dW1 = x.T @ dh
//
// GELU is the epilogue of the GEMM before it, not a pass over memory: forward, each tile of h becomes a tile of a as soon as
// it is summed; back, each tile of dout @ W2.T meets its tile of h and becomes dh at once, and the same exponential gives a again. So only
// h is cached; a and dh live in scratch, for ROWS rows at a time, and da is never stored at all.
// Loop order: pieces of ROWS rows > GEMMs. Gradients of weights add up over pieces, in order.
//
// In mixed precision matmuls are in bfloat16, and so is what stays between them: x and h in the cache, a and dh in scratch. GELU and
// its slope are computed in float, forward from h before it is rounded.
#include "cpu/gemm/matmul.h"
#include "cpu/gemm/matmul_bf16.h"
#include "cpu/linear/bf16_weight.h"
#include "cpu/linear/column_sums.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::mlp {

constexpr int64_t ROWS = ROWS_OF_A;

// h and a = gelu(h) go to memory.
template <class T, class S>
struct GeluOfH {
    AddBias<T> add_bias;
    S *h, *a;
    int64_t F;
    void operator()(Vec<T> v, int64_t row, int64_t column, int64_t n) const {
        v = add_bias(v, row, column, n);
        store_numbers(h + row * F + column, v, n);
        store_numbers(a + row * F + column, vgelu<T>(v), n);
    }
};

// a = gelu(h) and dh = da * slope go to memory.
template <class T, class S>
struct SlopeAtH {
    const S* h;
    S *a, *dh;
    int64_t F;
    void operator()(Vec<T> da, int64_t row, int64_t column, int64_t n) const {
        Vec<T> slope, value = vgelu_and_slope<T>(load_numbers(h + row * F + column, n), slope);
        store_numbers(a + row * F + column, value, n);
        store_numbers(dh + row * F + column, da * slope, n);
    }
};

// All but x may be null.
template <class T>
struct Gradients {
    T *x, *w1, *b1, *w2, *b2;
};

// T: of arrays and sums. S: of what stays between matmuls, T or, in mixed precision, bf16.
template <class T, class S>
struct Mlp {
    static constexpr bool MIXED = !std::is_same_v<T, S>;
    typedef std::conditional_t<MIXED, Operand, Matrix<T>> Right;  // a weight, or what arrives as T
    typedef std::conditional_t<MIXED, uint16_t, T> Bits;
    int64_t N, C, F, D;
    const S* x;  // (N, C)
    Right w1, w2;  // (C, F), (F, D)

    template <class Epilogue = NoEpilogue>
    static void multiply(int64_t M, int64_t N, int64_t K, Matrix<S> A, const Right& B, T* C, int64_t stride,
                         bool add = false, const Epilogue& epilogue = Epilogue()) {
        if constexpr (MIXED) matmul_bf16(M, N, K, A, B, C, stride, add, epilogue);
        else matmul<T>(M, N, K, A, B, C, stride, add, epilogue);
    }

    // Where a GEMM whose epilogue stores its numbers elsewhere keeps the sums of parts of K: there, too, if they fit.
    static T* parts(S* there, int64_t n) {
        thread_local Scratch<T> scratch;
        if constexpr (MIXED) return scratch.at_least(n);
        else return there;
    }

    static const S* stored(Scratch<S>& scratch, const T* numbers, int64_t n) {
        if constexpr (MIXED) return round_array(scratch.at_least(n), numbers, n), scratch.data;
        else return numbers;
    }

    void forward(T* out, S* h, const T* b1, const T* b2) const {
        thread_local Scratch<S> scratch;
        S* a = scratch.at_least(std::min(N, ROWS) * F);  // (rows, F)
        for (int64_t row = 0; row < N; row += ROWS) {
            int64_t rows = std::min(ROWS, N - row);
            multiply(rows, F, C, {x + row * C, C}, w1, parts(a, rows * F), F, false,
                     GeluOfH<T, S>{{b1}, h + row * F, a, F});
            multiply(rows, D, F, {a, F}, w2, out + row * D, D, false, AddBias<T>{b2});
        }
    }

    void backward(const Gradients<T>& d, bool into, const T* dout, const S* h) const {
        thread_local Scratch<S> scratch_a, scratch_dh, scratch_dout;
        int64_t most = std::min(N, ROWS);
        S *a = scratch_a.at_least(most * F), *dh = scratch_dh.at_least(most * F);  // (rows, F)
        for (int64_t row = 0; row < N || row == 0; row += ROWS) {  // once for N = 0: zero gradients
            int64_t rows = std::min(ROWS, N - row);
            const S* doutr = stored(scratch_dout, dout + row * D, rows * D);
            bool add = into || row > 0;
            multiply(rows, F, D, {doutr, D}, w2.transpose(), parts(dh, rows * F), F, false,
                     SlopeAtH<T, S>{h + row * F, a, dh, F});
            if (d.w2) multiply(F, D, rows, {a, F, true}, Matrix<S>{doutr, D}, d.w2, D, add);
            multiply(rows, C, F, {dh, F}, w1.transpose(), d.x + row * C, C);
            if (d.w1) multiply(C, F, rows, {x + row * C, C, true}, Matrix<S>{dh, F}, d.w1, F, add);
            column_sums(d.b1, dh, rows, F, add);
            column_sums(d.b2, dout + row * D, rows, D, add);
        }
    }

    static Right weight(const char* name, const Array& a, const Shape& shape) {
        if constexpr (MIXED) return operand_of(name, a, shape);
        else return Matrix<T>{input<T>(name, a, shape), a.shape[1]};
    }

    // Its arguments, checked, but for x, which is given.
    static Mlp of(const S* x, const Shape& shape, int64_t N, const Array& fc_weight, const Array& proj_weight) {
        Right w1 = weight("fc_weight", fc_weight, {shape.back(), ANY});
        int64_t F = fc_weight.shape[1];
        Right w2 = weight("proj_weight", proj_weight, {F, ANY});
        return {N, shape.back(), F, proj_weight.shape[1], x, w1, w2};
    }
};

template <class T, class S>
Tuple forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& proj_weight,
              const Array& proj_bias) {
    typedef Mlp<T, S> M;
    typedef typename M::Bits Bits;
    last("x", x);
    const T* px = input<T>("x", x, x.shape);
    Result<Bits> stored_x = M::MIXED ? fresh<Bits>(x.shape) : Result<Bits>(x, (Bits*)px);  // read only, if it is x
    M mlp = M::of((S*)stored_x.data, x.shape, x.rows(), fc_weight, proj_weight);
    const T *b1 = input<T>("fc_bias", fc_bias, {mlp.F}), *b2 = input<T>("proj_bias", proj_bias, {mlp.D});
    auto out = fresh<T>(x.with_last(mlp.D));
    auto h = fresh<Bits>({mlp.N, mlp.F});
    without_gil([&] {
        if constexpr (M::MIXED) round_array((S*)stored_x.data, px, x.size());
        mlp.forward(out, (S*)h.data, b1, b2);
    });
    return tuple_of({out, tuple_of({stored_x, fc_weight, proj_weight, h})});
}

template <class T, class S>
Tuple backward(const Array& dout, const Tuple& cache, const Object& into) {
    typedef Mlp<T, S> M;
    typedef typename M::Bits Bits;
    Array x = cached(cache, 0), h = cached(cache, 3);
    last("x", x);
    auto* px = (const S*)input<Bits>(M::MIXED ? "cached x" : "x", x, x.shape);
    M mlp = M::of(px, x.shape, x.rows(), cached(cache, 1), cached(cache, 2));
    auto* ph = (const S*)input<Bits>("cached h", h, {mlp.N, mlp.F});
    const T* pd = input<T>("dout", dout, x.with_last(mlp.D));
    auto dx = fresh<T>(x.shape);
    auto d = gradients<T>(into, {{mlp.C, mlp.F}, {mlp.F}, {mlp.F, mlp.D}, {mlp.D}});
    without_gil([&] { mlp.backward({dx, d[0], d[1], d[2], d[3]}, !into.is_none(), pd, ph); });
    return tuple_of({dx, d[0], d[1], d[2], d[3]});
}

Tuple mlp_forward(const Array& x, const Array& fc_weight, const Array& fc_bias, const Array& proj_weight,
                  const Array& proj_bias) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        return forward<T, T>(x, fc_weight, fc_bias, proj_weight, proj_bias);
    });
}

Tuple mlp_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return by_dtype("x", cached(cache, 0), [&](auto zero) {
        using T = decltype(zero);
        return backward<T, T>(dout, cache, into);
    });
}

const Register registered[] = {
    {"mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias)", &mlp_forward},
    {"mlp_backward(dout, cache, into=None)", &mlp_backward},
    {"mlp_forward_bf16(x, fc_weight, fc_bias, proj_weight, proj_bias)", &forward<float, bf16>},
    {"mlp_backward_bf16(dout, cache, into=None)", &backward<float, bf16>}};

}  // namespace minillm::mlp
