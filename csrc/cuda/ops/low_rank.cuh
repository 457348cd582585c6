// A frozen linear layer with a low-rank update. Formulas: minillm/ops/lora_linear.py.
//
//   h = scale * drop(x) @ a         out = x @ weight + bias + h @ b
//   dh = scale * dout @ b.T         dx = dout @ weight.T + drop(dh @ a.T)
//   da = drop(x).T @ dh             db = h.T @ dout
//
// Two large GEMMs (matmul.cuh), where a layer that learns has three; h @ b and drop(dh @ a.T) are their epilogues: r
// more multiplications a number, of operands that lie in L1, and no pass over `out` or `dx`. The others are GEMMs of r
// columns or rows. drop(x) is made in scratch, from x and the mask's bits, which are cached.
#pragma once

#include "cuda/ops/dropout.cuh"
#include "cuda/ops/matmul.cuh"

namespace minillm::low_rank {
using gemm::Matrix, gemm::Output, gemm::Tiled, gemm::Transposed;

template <class T>
struct Scaled {
    T scale;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t, int64_t, int64_t) const {
        UNROLL_FOR (int i = 0; i < W; i++) v[i] *= scale;
    }
};

// Bits of dropout for an array of rows of `columns` numbers; keep is null where there is no dropout.
template <class T>
struct Mask {
    const uint8_t* keep;
    T scale;
    int64_t columns;
    DEVICE T operator()(T x, int64_t row, int64_t column) const {
        if (!keep) return x;
        const int64_t at = row * columns + column;
        return keep[at / 8] >> at % 8 & 1 ? x * scale : T(0);
    }
};

// v += bias + mask(h @ m), h (N, r), m (r, columns): element (p, j) of m lies at m[p * down + j * across].
template <class T>
struct LowRank {
    gemm::AddBias<T> add_bias;
    const T *h, *m;
    int64_t r, down, across;
    Mask<T> mask;
    template <int W>
    DEVICE void operator()(T (&v)[W], int64_t row, int64_t column, int64_t n) const {
        T update[W] = {}, four[W];
        for (int64_t p = 0; p < r; p++) {
            const T* line = m + p * down + column * across;
            if (across == 1) gemm::load_numbers(four, line, n);
            else
                UNROLL_FOR (int i = 0; i < W; i++) four[i] = i < n ? line[i * across] : T(0);
            UNROLL_FOR (int i = 0; i < W; i++) update[i] += h[row * r + p] * four[i];
        }
        add_bias(v, row, column, n);
        UNROLL_FOR (int i = 0; i < W; i++)
            if (i < n) v[i] += mask(update[i], row, column + i);
    }
};

// weight (I, J), a (I, r), b (r, J); TRANSPOSED: all of them are stored the other way.
template <class T, bool TRANSPOSED>
struct Layer {
    const T *weight, *a, *b;
    int64_t I, J, r;
    T scale;

    using Stored = Matrix<T, TRANSPOSED>;
    using Other = Matrix<T, !TRANSPOSED>;
    int64_t line() const { return TRANSPOSED ? I : J; }
    LowRank<T> update(const T* h, const T* bias) const {
        return {{bias}, h, b, r, TRANSPOSED ? 1 : J, TRANSPOSED ? r : 1, {}};
    }
    LowRank<T> update_of_dx(const T* dh, const Mask<T>& mask) const {
        return {{nullptr}, dh, a, r, TRANSPOSED ? I : 1, TRANSPOSED ? 1 : r, mask};
    }

    // h = scale * dropped @ a, and dh = scale * dout @ b.T.
    void ranks(T* h, const T* dropped, int64_t N, gpu::Stream s) const {
        Tiled::matmul({N, r, I}, Matrix<T>{dropped, I}, Stored{a, TRANSPOSED ? I : r}, Output<T>{h, r}, s,
                      Scaled<T>{scale});
    }
    void ranks_of_dout(T* dh, const T* dout, int64_t N, gpu::Stream s) const {
        Tiled::matmul({N, r, J}, Matrix<T>{dout, J}, Other{b, TRANSPOSED ? r : J}, Output<T>{dh, r}, s,
                      Scaled<T>{scale});
    }
    // out = epilogue(x @ weight), and dx = epilogue(dout @ weight.T).
    template <class Epilogue>
    void forward(T* out, const T* x, int64_t N, gpu::Stream s, const Epilogue& epilogue) const {
        Tiled::matmul({N, J, I}, Matrix<T>{x, I}, Stored{weight, line()}, Output<T>{out, J}, s, epilogue);
    }
    template <class Epilogue>
    void backward(T* dx, const T* dout, int64_t N, gpu::Stream s, const Epilogue& epilogue) const {
        Tiled::matmul({N, I, J}, Matrix<T>{dout, J}, Other{weight, line()}, Output<T>{dx, I}, s, epilogue);
    }
    // Either may be null; add: they are added to.
    void gradients(T* da, T* db, bool add, const T* dropped, const T* dh, const T* h, const T* dout, int64_t N,
                   gpu::Stream s) const {
        outer(da, add, dropped, I, dh, r, N, s);
        outer(db, add, h, r, dout, J, N, s);
    }

private:
    // left.T @ right, or the transpose of that.
    static void outer(T* d, bool add, const T* left, int64_t L, const T* right, int64_t R, int64_t N, gpu::Stream s) {
        if (d && TRANSPOSED)
            Tiled::matmul({R, L, N}, Transposed<T>{right, R}, Matrix<T>{left, L}, Output<T>{d, L, add}, s);
        if (d && !TRANSPOSED)
            Tiled::matmul({L, R, N}, Transposed<T>{left, L}, Matrix<T>{right, R}, Output<T>{d, R, add}, s);
    }
};

// drop(x), to `room`, or x itself where nothing is dropped. The mask's bits are drawn, or are those that were.
template <class T>
const T* draw_and_drop(T* room, uint8_t* keep, const T* x, int64_t n, double p, const dropout::Mask<T>& mask,
                       gpu::Stream s) {
    if (!p) return x;
    cuda::over((n + 7) / 8, dropout::dropout_forward<T>, stream_t(s), room, keep, x, n, mask, cuda::aligned({room, x}));
    return room;
}
template <class T>
const T* drop(T* room, const uint8_t* keep, const T* x, int64_t n, double p, gpu::Stream s) {
    if (!p) return x;
    cuda::over((n + 3) / 4, dropout::dropout_backward<T>, stream_t(s), room, x, keep, n, T(1 / (1 - p)),
               cuda::aligned({room, x}));
    return room;
}

}  // namespace minillm::low_rank
