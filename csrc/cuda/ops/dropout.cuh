// Dropout with a mask that is a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
//   keep[i] = bits(i) >= ceil(p * 2^32)          out[i] = keep[i] ? x[i] / (1 - p) : 0          dx the same, from dout
//
// Step 1, naive: a thread a number, and each draws its own bits: eight threads encrypt the same block of Philox, ten
// rounds of wide products for one of them that is used. Arithmetic bound.
// Step 2: a thread for the eight numbers of a block, which it reads and writes four at a time, so Philox is paid once. It
// keeps the mask, a bit a number (1/32 of x), and the backward, the same kernel without the drawing, reads that: both
// are memory-bandwidth bound.
#pragma once

#include "cuda/ops/philox.cuh"
#include "cuda/ops/threads.cuh"

namespace minillm::dropout {
using namespace cuda;

template <class T>
struct Mask {
    PhiloxKey key;
    uint64_t complement;  // 2^32 - ceil(p * 2^32)
    T scale;  // 1 / (1 - p)
};

// keep: bytes of eight bits each, which the first of eight threads writes.
template <class T>
__global__ void naive_dropout_forward(T* out, uint8_t* keep, const T* x, int64_t n, Mask<T> mask) {
    const int64_t i = thread_number();
    if (i >= n) return;
    const uint32_t bits = keep_block(uint64_t(i) / 8, mask.key, mask.complement);
    out[i] = bits >> i % 8 & 1 ? x[i] * mask.scale : T(0);
    if (i % 8 == 0) keep[i / 8] = uint8_t(bits);
}
template <class T>
__global__ void naive_dropout_backward(T* dx, const T* dout, const uint8_t* keep, int64_t n, T scale) {
    const int64_t i = thread_number();
    if (i < n) dx[i] = keep[i / 8] >> i % 8 & 1 ? dout[i] * scale : T(0);
}

// out[i + j] = x[i + j] * scale where bit j is set, else 0, for j from 0 to 3.
template <class T>
DEVICE void drop_four(T* out, const T* x, int64_t i, int64_t n, uint32_t bits, T scale, bool aligned) {
    const bool whole = aligned && i + 4 <= n;
    const Vec4<T> v = row_of(x, n, whole).get(i);
    const auto kept = [&](int j, T number) { return bits >> j & 1 ? number * scale : T(0); };
    row_of(out, n, whole).put(i, {kept(0, v.x), kept(1, v.y), kept(2, v.z), kept(3, v.w)});
}

template <class T>
__global__ void dropout_forward(T* out, uint8_t* keep, const T* x, int64_t n, Mask<T> mask, bool aligned) {
    const int64_t block = thread_number(), i = 8 * block;
    if (i >= n) return;
    const uint32_t bits = keep_block(uint64_t(block), mask.key, mask.complement);
    keep[block] = uint8_t(bits);
    drop_four(out, x, i, n, bits, mask.scale, aligned);
    if (i + 4 < n) drop_four(out, x, i + 4, n, bits >> 4, mask.scale, aligned);
}
template <class T>
__global__ void dropout_backward(T* dx, const T* dout, const uint8_t* keep, int64_t n, T scale, bool aligned) {
    const int64_t i = 4 * thread_number();
    if (i < n) drop_four(dx, dout, i, n, uint32_t(keep[i / 8]) >> i % 8, scale, aligned);
}
}  // namespace minillm::dropout
