// Muon: momentum, five steps of Newton-Schulz, the update of a matrix. Formulas: minillm/ops/optimizer/muon.py.
//
//   m  = momentum * m + (1 - momentum) * g      u  = momentum * m + (1 - momentum) * g      g = grad * scale
//   X  = u / norm(u)                            X <- (a + b A + c A A) X,  A = X X^T,  five times
//   w <- w * (1 - lr * weight_decay) - lr * 0.2 * sqrt(max(R, K)) * X
//
// The three GEMMs of a step are matmul.cuh's, and take nearly all of the time. A tall matrix is not transposed: with
// A = X^T X, X (a + b A + c A A) is the same polynomial of its singular values. What is here is elementwise; the norm
// stays on the device.
// What is left to gain: matrices come one after the other, each in some two dozen launches, and small ones fill no GPU.
#pragma once

#include "cuda/ops/matmul.cuh"
#include "cuda/ops/sum_squares.cuh"

namespace minillm::muon {
using namespace cuda;
constexpr double A_1 = 3.4445, A_3 = -4.7750, A_5 = 2.0315, EPSILON = 1e-7, RMS = 0.2;
constexpr int STEPS = 5;

template <class T>
struct Settings {
    T momentum, rest, scale, kept, rate;  // rest: 1 - momentum; kept: 1 - lr * weight_decay; rate: lr
};

// Rows that may be apart, as the thirds of c_attn are.
template <class T>
struct Rows {
    T* data;
    int64_t stride;
    DEVICE T& operator()(int64_t i, int64_t j) const { return data[i * stride + j]; }
};

// One matrix (R, K). bits: null, or its bfloat16 copy.
template <class T>
struct Item {
    Rows<T> w, m;
    Rows<const T> grad;
    Rows<uint16_t> bits;
    int64_t R, K;
};

template <class T>
__global__ void momentum_step(T* X, Item<T> item, Settings<T> s) {
    const int64_t n = thread_number(), i = n / item.K, j = n % item.K;
    if (i >= item.R) return;
    const T g = item.grad(i, j) * s.scale, m = s.momentum * item.m(i, j) + s.rest * g;
    item.m(i, j) = m;
    X[n] = s.momentum * m + s.rest * g;
}

// X / (norm + eps), with the square of the norm.
template <class T>
__global__ void normalise(T* X, const double* square, int64_t n) {
    const int64_t i = thread_number();
    if (i < n) X[i] *= T(1 / (sqrt(*square) + EPSILON));
}

// B = a + b A + c B, (small, small); B holds A A.
template <class T>
__global__ void polynomial(T* B, const T* A, int64_t small) {
    const int64_t n = thread_number();
    if (n < small * small) B[n] = T(A_3) * A[n] + T(A_5) * B[n] + (n / small == n % small ? T(A_1) : T(0));
}

template <class T>
__global__ void write_weights(const T* X, Item<T> item, Settings<T> s, T rate) {
    const int64_t n = thread_number(), i = n / item.K, j = n % item.K;
    if (i >= item.R) return;
    const T w = item.w(i, j) * s.kept - rate * X[n];
    item.w(i, j) = w;
    if (item.bits.data) item.bits(i, j) = uint16_t(pack<bf16>(float(w), 0));
}

// Room to work in for the largest of the matrices.
template <class T>
struct Room {
    T *X, *Y, *A, *B;
    double* sums;
};

template <class T>
void newton_schulz(const Room<T>& room, int64_t R, int64_t K, stream_t stream) {
    using gemm::Matrix, gemm::Transposed, gemm::Tiled;
    const int64_t small = R < K ? R : K;
    const Matrix<T> X = {room.X, K}, A = {room.A, small}, B = {room.B, small};
    const Transposed<T> turned = {room.X, K};
    const gemm::Output<T> to_A = {room.A, small}, to_B = {room.B, small}, to_Y = {room.Y, K};
    if (R <= K) Tiled::matmul({R, R, K}, X, turned, to_A, stream);
    else Tiled::matmul({K, K, R}, turned, X, to_A, stream);
    Tiled::matmul({small, small, small}, A, A, to_B, stream);
    over(small * small, polynomial<T>, stream, room.B, room.A, small);
    if (R <= K) Tiled::matmul({R, K, R}, B, X, to_Y, stream);
    else Tiled::matmul({R, K, K}, X, B, to_Y, stream);
}

template <class T>
void update(const Item<T>& item, Room<T> room, const Settings<T>& s, stream_t stream) {
    const int64_t n = item.R * item.K;
    if (!n) return;
    over(n, momentum_step<T>, stream, room.X, item, s);
    sum_squares::launch_sum<false>(room.sums, room.X, n, stream);
    over(n, normalise<T>, stream, room.X, room.sums, n);
    for (int step = 0; step < STEPS; step++) {
        newton_schulz(room, item.R, item.K, stream);
        std::swap(room.X, room.Y);
    }
    const double larger = double(item.R < item.K ? item.K : item.R);
    over(n, write_weights<T>, stream, room.X, item, s, T(s.rate * T(RMS * sqrt(larger))));
}
}  // namespace minillm::muon
