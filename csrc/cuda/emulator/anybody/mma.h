// nvcuda::wmma: matrix fragments spread over a warp. Which lane holds which element is no part of CUDA's contract, and is
// the emulator's own here: element e of lane l is number l * num_elements + e of the matrix, row by row.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

// c (m x n) += a (m x k) @ b (k x n), each lane with its own elements.
extern "C" void minillm_cuda_matmul(int m, int n, int k, const float* a, const float* b, float* c);
// An element from or to memory, checked like any access, but no matter for advice on speed: the layout is ours.
extern "C" void minillm_cuda_move(void* to, const void* from, size_t bytes, int writes);
extern "C" void minillm_cuda_check_matrix(const void* p, unsigned stride_bytes);
// The lanes come together, but do not learn what the others have stored: that is __syncwarp's part.
extern "C" void minillm_cuda_meet_for_matrix();

namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}  // namespace precision
template <class T>
struct stored {
    using type = T;
};
template <>
struct stored<precision::tf32> {
    using type = float;
};
template <class Use, int M, int N, int K>
struct extent;
template <int M, int N, int K>
struct extent<matrix_a, M, N, K> {
    static constexpr int rows = M, columns = K;
};
template <int M, int N, int K>
struct extent<matrix_b, M, N, K> {
    static constexpr int rows = K, columns = N;
};
template <int M, int N, int K>
struct extent<accumulator, M, N, K> {
    static constexpr int rows = M, columns = N;
};

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment : extent<Use, M, N, K> {
    using element_type = typename stored<T>::type;
    using storage_element_type = element_type;
    static constexpr int num_elements = extent<Use, M, N, K>::rows * extent<Use, M, N, K>::columns / 32;
    static constexpr int num_storage_elements = num_elements;
    element_type x[num_elements];
};
namespace own {
MINILLM_INLINE int lane() { return int((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32); }
// Only the top 19 bits of a float take part as tf32.
MINILLM_INLINE float tf32(float x) {
    const unsigned u = minillm_cuda::float_bits(x);
    return minillm_cuda::bits_float((u + 0xfff + (u >> 13 & 1)) & 0xffffe000u);
}
template <class F, class T>
MINILLM_INLINE void load(F& f, const T* p, unsigned stride, bool by_row) {
    minillm_cuda_meet_for_matrix();
    const int first = lane() * F::num_elements;
    for (int i = 0; i < F::num_elements; i++) {
        const unsigned row = unsigned(first + i) / F::columns, column = unsigned(first + i) % F::columns;
        minillm_cuda_move(f.x + i, p + (by_row ? row * stride + column : column * stride + row), sizeof(T), 0);
    }
}
}  // namespace own

template <class Use, int M, int N, int K, class T, class Layout>
MINILLM_INLINE void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const typename stored<T>::type* p,
                                     unsigned stride) {
    minillm_cuda_check_matrix(p, stride * unsigned(sizeof *p));
    own::load(f, p, stride, std::is_same<Layout, row_major>::value);
}
template <int M, int N, int K, class T>
MINILLM_INLINE void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned stride,
                                     layout_t layout) {
    minillm_cuda_check_matrix(p, stride * unsigned(sizeof *p));
    own::load(f, p, stride, layout == mem_row_major);
}
template <int M, int N, int K, class T>
MINILLM_INLINE void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f, unsigned stride,
                                      layout_t layout) {
    minillm_cuda_check_matrix(p, stride * unsigned(sizeof *p));
    using F = fragment<accumulator, M, N, K, T>;
    const int first = own::lane() * F::num_elements;
    for (int i = 0; i < F::num_elements; i++) {
        const unsigned row = unsigned(first + i) / F::columns, column = unsigned(first + i) % F::columns;
        minillm_cuda_move(p + (layout == mem_row_major ? row * stride + column : column * stride + row), f.x + i,
                          sizeof(T), 1);
    }
    minillm_cuda_meet_for_matrix();
}
template <class Use, int M, int N, int K, class T, class Layout, class V>
MINILLM_INLINE void fill_fragment(fragment<Use, M, N, K, T, Layout>& f, V x) {
    for (auto& element : f.x) element = static_cast<typename stored<T>::type>(x);
}
template <int M, int N, int K, class T, class A, class B, class D, class C>
MINILLM_INLINE void mma_sync(fragment<accumulator, M, N, K, D>& d, const fragment<matrix_a, M, N, K, T, A>& a,
                             const fragment<matrix_b, M, N, K, T, B>& b, const fragment<accumulator, M, N, K, C>& c) {
    constexpr bool rounds = std::is_same<T, precision::tf32>::value;
    float left[M * K / 32], right[K * N / 32], sums[M * N / 32];
    for (int i = 0; i < M * K / 32; i++) left[i] = rounds ? own::tf32(float(a.x[i])) : float(a.x[i]);
    for (int i = 0; i < K * N / 32; i++) right[i] = rounds ? own::tf32(float(b.x[i])) : float(b.x[i]);
    for (int i = 0; i < M * N / 32; i++) sums[i] = float(c.x[i]);
    minillm_cuda_matmul(M, N, K, left, right, sums);
    for (int i = 0; i < M * N / 32; i++) d.x[i] = static_cast<D>(sums[i]);
}
MINILLM_INLINE float __float_to_tf32(float x) { return own::tf32(x); }
}  // namespace wmma
}  // namespace nvcuda
MINILLM_INLINE float __float_to_tf32(float x) { return nvcuda::wmma::own::tf32(x); }
