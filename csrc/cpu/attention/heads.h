// What the kernels of attention share: the sizes, and where the heads lie in qkv.
#pragma once

#include <cstdint>

namespace minillm::attention {

struct Sizes {
    int64_t B, T, NH, HS;
    int64_t C() const { return NH * HS; }
};

// Rows of one head inside a larger array: row t is HS numbers at data + t * stride.
template <class T>
struct Rows {
    T* data;
    int64_t stride;
    T* operator[](int64_t t) const { return data + t * stride; }
};

// which: 0 queries, 1 keys, 2 values, in qkv (B, T, 3C) or its gradient.
template <class T>
Rows<T> qkv_rows(T* qkv, const Sizes& n, int64_t b, int64_t h, int64_t which) {
    return {qkv + b * n.T * 3 * n.C() + which * n.C() + h * n.HS, 3 * n.C()};
}

template <class T>
Rows<T> out_rows(T* out, const Sizes& n, int64_t b, int64_t h) {
    return {out + b * n.T * n.C() + h * n.HS, n.C()};
}

template <class T>
T dot(const T* a, const T* b, int64_t n) {
    T total = 0;
    for (int64_t i = 0; i < n; i++) total += a[i] * b[i];
    return total;
}

}  // namespace minillm::attention
