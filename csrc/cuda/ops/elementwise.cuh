// Ops that take each number by itself: four numbers a thread, one pass over memory.
//
//   out[i] = f(in[i], ...)
//
//   1 naive   one thread a number. A warp's 32 threads read 32 neighbours, so the accesses are coalesced already; but a
//             thread has a single load of 4 bytes under way, and computes an address for each number.
//   best      vectorised: one thread takes four neighbours by one load of 16 bytes (two of float64) an array, if all
//             arrays begin at a multiple of 16 bytes; else, and at the end, number by number. A quarter of the
//             instructions and four times the bytes under way: such an op is memory-bandwidth bound, and that is what
//             keeps the memory busy.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/gpu/gpu.h"

namespace minillm::cuda {
constexpr int THREADS = 256;

// `size` numbers, taken four neighbours at a time. A Row of const T is one that no thread writes.
template <class T>
struct Row {
    using Number = std::remove_const_t<T>;
    T* data;
    int64_t size;
    bool aligned;  // load4 will do everywhere: so size is a multiple of 4, too

    // Numbers i to i + 3, zeros beyond the end; i is a multiple of 4.
    DEVICE Vec4<Number> get(int64_t i) const {
        if (aligned && std::is_const_v<T>) return load4_readonly(data + i);
        if (aligned) return load4<Number>(data + i);
        const auto at = [&](int64_t j) { return j < size ? data[j] : Number(0); };
        return {at(i), at(i + 1), at(i + 2), at(i + 3)};
    }
    DEVICE void put(int64_t i, const Vec4<Number>& v) const {
        if (aligned) return store4(data + i, v);
        if (i < size) data[i] = v.x;
        if (i + 1 < size) data[i + 1] = v.y;
        if (i + 2 < size) data[i + 2] = v.z;
        if (i + 3 < size) data[i + 3] = v.w;
    }
};

template <class T>
DEVICE Row<T> row_of(T* data, int64_t size, bool aligned) {
    return {data, size, aligned};
}

// f of each of the four.
template <class F, class... V>
DEVICE auto map4(F f, const V&... v) -> Vec4<decltype(f(v.x...))> {
    return {f(v.x...), f(v.y...), f(v.z...), f(v.w...)};
}

// Do these arrays begin where load4 may read? So do their rows, if a row is a multiple of four numbers.
inline bool aligned(std::initializer_list<const void*> arrays, int64_t row = 4) {
    bool all = row % 4 == 0;
    for (const void* array : arrays) all = all && reinterpret_cast<uintptr_t>(array) % 16 == 0;
    return all;
}

// Whole warps for `wanted` threads, at most THREADS: a block of a small array is small.
inline int threads_for(int64_t wanted) { return wanted < THREADS ? int(wanted + 31) / 32 * 32 : THREADS; }

inline dim3 blocks_for(int64_t threads, int block) {
    const int64_t blocks = (threads + block - 1) / block;
    if (blocks > 0x7fffffff) throw std::runtime_error("the array is too large for a grid of blocks");
    return dim3(unsigned(blocks));
}

// ---- kernels: f is an object whose operator() takes a number of each input; of a pair of results, f(one, two, in...)
// sets both ----

template <class F, class T, class... In>
__global__ void naive_elementwise(F f, T* out, int64_t n, const In*... in) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = f(in[i]...);
}

template <class F, class T, class... In>
__global__ void naive_elementwise_pair(F f, T* one, T* two, int64_t n, const In*... in) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) f(one[i], two[i], in[i]...);
}

template <class F, class T, class... In>
__global__ void elementwise(F f, T* out, int64_t n, bool aligned, const In*... in) {
    const int64_t i = 4 * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
    const bool whole = aligned && i + 4 <= n;
    if (i < n) row_of(out, n, whole).put(i, map4(f, row_of(in, n, whole).get(i)...));
}

template <class F, class T, class... In>
__global__ void elementwise_pair(F f, T* one, T* two, int64_t n, bool aligned, const In*... in) {
    const int64_t i = 4 * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
    const bool whole = aligned && i + 4 <= n;
    if (i >= n) return;
    Vec4<T> a, b;
    const auto all = [&](const auto&... v) {
        f(a.x, b.x, v.x...);
        f(a.y, b.y, v.y...);
        f(a.z, b.z, v.z...);
        f(a.w, b.w, v.w...);
    };
    all(row_of(in, n, whole).get(i)...);
    row_of(one, n, whole).put(i, a);
    row_of(two, n, whole).put(i, b);
}

// ---- launchers; NAIVE: step 1 ----

template <bool NAIVE = false, class F, class T, class... In>
void run_elementwise(F f, T* out, int64_t n, stream_t stream, const In*... in) {
    const int64_t all = NAIVE ? n : (n + 3) / 4;
    const int threads = threads_for(all);
    if (!n) return;
    if constexpr (NAIVE)
        launch(naive_elementwise<F, T, In...>, blocks_for(all, threads), threads, 0, stream, f, out, n, in...);
    else
        launch(elementwise<F, T, In...>, blocks_for(all, threads), threads, 0, stream, f, out, n, aligned({out, in...}),
               in...);
}

template <bool NAIVE = false, class F, class T, class... In>
void run_elementwise_pair(F f, T* one, T* two, int64_t n, stream_t stream, const In*... in) {
    const int64_t all = NAIVE ? n : (n + 3) / 4;
    const int threads = threads_for(all);
    if (!n) return;
    if constexpr (NAIVE)
        launch(naive_elementwise_pair<F, T, In...>, blocks_for(all, threads), threads, 0, stream, f, one, two, n,
               in...);
    else
        launch(elementwise_pair<F, T, In...>, blocks_for(all, threads), threads, 0, stream, f, one, two, n,
               aligned({one, two, in...}), in...);
}
}  // namespace minillm::cuda
