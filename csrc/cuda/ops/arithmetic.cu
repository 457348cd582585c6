// Sums, products and fills of whole arrays, four numbers a thread (elementwise.cuh); bound by memory.
#include "cuda/ops/arithmetic.h"

#include "cuda/gpu/arena.h"
#include "cuda/ops/elementwise.cuh"
#include "cuda/ops/reduce.cuh"

namespace minillm::arithmetic {
namespace {
using namespace cuda;

template <class T>
struct Sum {
    DEVICE T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct Constant {
    T value;
    DEVICE T operator()() const { return value; }
};
template <class T>
struct Towards {
    T rate;
    DEVICE T operator()(T mean, T x) const { return mean + rate * (x - mean); }
};

template <class T>
__global__ void scale_columns(T* out, const T* x, const T* columns, int64_t n, int64_t C) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] * columns[i % C];
}

// A block for each PIECE numbers, then one for what they leave: as op sum_squares, an order that depends on n only.
constexpr int WARPS = 8;
constexpr int64_t PIECE = 16384;
template <class T>
__global__ void sum_pieces(double* out, const T* x, int64_t piece, int64_t n) {
    SHARED(double, room);
    const int64_t begin = blockIdx.x * piece, end = begin + piece < n ? begin + piece : n;
    double mine = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += 32 * WARPS) mine += double(x[i]);
    const double total = block_sum<WARPS>(mine, room);
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}

template <class F>
void of_type(const string& dtype, F f) {
    by_dtype("the array", dtype, [&](auto zero) { return f(zero), 0; });
}

}  // namespace

void add(const string& dtype, void* out, const void* a, const void* b, int64_t n, gpu::Stream stream) {
    of_type(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_elementwise<false>(Sum<T>(), static_cast<T*>(out), n, stream_t(stream), static_cast<const T*>(a),
                               static_cast<const T*>(b));
    });
}

void multiply_columns(const string& dtype, void* out, const void* x, const void* columns, int64_t n, int64_t C,
                      gpu::Stream stream) {
    of_type(dtype, [&](auto zero) {
        using T = decltype(zero);
        if (n)
            launch(scale_columns<T>, blocks_for(n, THREADS), THREADS, 0, stream_t(stream), static_cast<T*>(out),
                   static_cast<const T*>(x), static_cast<const T*>(columns), n, C);
    });
}

void fill(const string& dtype, void* out, double value, int64_t n, gpu::Stream stream) {
    of_type(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_elementwise<false>(Constant<T>{T(value)}, static_cast<T*>(out), n, stream_t(stream));
    });
}

void average(const string& dtype, void* mean, const void* x, double rate, int64_t n, gpu::Stream stream) {
    of_type(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_elementwise<false>(Towards<T>{T(rate)}, static_cast<T*>(mean), n, stream_t(stream),
                               static_cast<const T*>(mean), static_cast<const T*>(x));
    });
}

double sum(const string& dtype, const void* x, int64_t n, gpu::Stream stream) {
    double total = 0;
    if (!n) return total;
    const int64_t pieces = (n + PIECE - 1) / PIECE;
    gpu::Block<double> sums(pieces + 1);
    of_type(dtype, [&](auto zero) {
        using T = decltype(zero);
        launch(sum_pieces<T>, blocks_for(pieces, 1), 32 * WARPS, WARPS * sizeof(double), stream_t(stream),
               sums.data + 1, static_cast<const T*>(x), PIECE, n);
    });
    launch(sum_pieces<double>, dim3(1), 32 * WARPS, WARPS * sizeof(double), stream_t(stream), sums.data,
           static_cast<const double*>(sums.data + 1), pieces, pieces);
    gpu::copy_out(&total, sums.data, sizeof total, stream);
    gpu::synchronize(stream);
    return total;
}
}  // namespace minillm::arithmetic
