// What the kernels of attention share: the sizes, and where the heads lie in qkv.
#pragma once

#include <cstdint>
#include <limits>

namespace minillm::attention {

constexpr int64_t NO_WINDOW = int64_t(1) << 60;  // a query sees every key up to its own

// What may be added to plain attention: minillm/ops/grouped_attention.py.
template <class T>
struct Options {
    int64_t window = NO_WINDOW;                  // how many keys a query sees, itself the last of them
    T sink = std::numeric_limits<T>::lowest();  // the logit of a further column, without a value; the lowest for none
    T cap = 0;  // scores stay within (-cap, cap); 0 for no bound
    bool has_sink() const { return sink > std::numeric_limits<T>::lowest(); }
};

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

// Queries, keys and values of one head, or their gradients.
template <class T>
struct HeadRows {
    Rows<T> q, k, v;
};

// Those of sequence bh / NH and head bh % NH in qkv (B, T, 3C).
template <class T>
HeadRows<T> qkv_head(T* qkv, const Sizes& n, int64_t bh) {
    int64_t b = bh / n.NH, h = bh % n.NH;
    return {qkv_rows(qkv, n, b, h, 0), qkv_rows(qkv, n, b, h, 1), qkv_rows(qkv, n, b, h, 2)};
}

template <class T>
T dot(const T* a, const T* b, int64_t n) {
    T total = 0;
    for (int64_t i = 0; i < n; i++) total += a[i] * b[i];
    return total;
}

}  // namespace minillm::attention
