// Rotary position embedding. Formulas: minillm/ops/rope.py.
//
//   out_a = a * cos - b * sin          out_b = b * cos + a * sin          (backward: by -sin)
//
// Memory-bandwidth bound: one pass. A block takes one token, so its position is found by a single division, and the
// cosines stay in L1 over the heads.
//   1 naive   one thread a pair of numbers; of interleaved pairs every second number, so that each access of a warp
//             fetches twice what it uses.
//   best      one thread four pairs: two loads of 16 bytes, and one each of cosines and sines, where all is aligned.
#pragma once

#include "cuda/ops/elementwise.cuh"

namespace minillm::rope {
template <class T>
struct Rotation {
    T* out;
    const T *x, *cos, *sin;
    T sign;  // 1 rotates, -1 rotates back
    int64_t tokens, T_, C, half;  // tokens: B * T_
    bool interleaved, aligned;
};

template <class T>
DEVICE void rotate(T& a, T& b, T c, T s) {
    const T turned = a * c - b * s;
    b = b * c + a * s;
    a = turned;
}

// Pair p of the token: head p / half, and in it pair i = p % half, whose numbers lie `apart` places from each other.
template <class T>
__global__ void naive_rope(Rotation<T> r) {
    const int64_t n = blockIdx.x, t = n % r.T_ * r.half, apart = r.interleaved ? 1 : r.half;
    for (int64_t p = threadIdx.x; p < r.C / 2; p += blockDim.x) {
        const int64_t i = p % r.half, at = n * r.C + 2 * (p - i) + (r.interleaved ? 2 * i : i);
        T a = r.x[at], b = r.x[at + apart];
        rotate(a, b, r.cos[t + i], r.sign * r.sin[t + i]);
        r.out[at] = a;
        r.out[at + apart] = b;
    }
}

// Four pairs, of which there may be fewer at the end of a head. `two`: where the head's b lie, or the second half of
// the interleaved pairs.
template <class T>
__global__ void rope(Rotation<T> r) {
    using cuda::row_of;
    const int64_t n = blockIdx.x, t = n % r.T_ * r.half, quarters = (r.half + 3) / 4, heads = r.C / (2 * r.half);
    for (int q = threadIdx.x; q < heads * quarters; q += blockDim.x) {
        const int head = q / int(quarters);
        const int64_t i = 4 * (q - head * quarters), begin = n * r.C + head * 2 * r.half;
        const Vec4<T> c = row_of(r.cos + t, r.half, r.aligned).get(i), s = row_of(r.sin + t, r.half, r.aligned).get(i);
        const int64_t length = r.interleaved ? 2 * r.half : r.half, one = r.interleaved ? 2 * i : i;
        const int64_t second = r.interleaved ? begin : begin + r.half, two = r.interleaved ? one + 4 : one;
        Vec4<T> a = row_of(r.x + begin, length, r.aligned).get(one),
                b = row_of(r.x + second, length, r.aligned).get(two);
        if (r.interleaved) {
            rotate(a.x, a.y, c.x, r.sign * s.x);
            rotate(a.z, a.w, c.y, r.sign * s.y);
            rotate(b.x, b.y, c.z, r.sign * s.z);
            rotate(b.z, b.w, c.w, r.sign * s.w);
        } else {
            rotate(a.x, b.x, c.x, r.sign * s.x);
            rotate(a.y, b.y, c.y, r.sign * s.y);
            rotate(a.z, b.z, c.z, r.sign * s.z);
            rotate(a.w, b.w, c.w, r.sign * s.w);
        }
        row_of(r.out + begin, length, r.aligned).put(one, a);
        row_of(r.out + second, length, r.aligned).put(two, b);
    }
}
}  // namespace minillm::rope
