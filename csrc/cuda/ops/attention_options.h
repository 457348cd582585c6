// The options of grouped_attention and attention_decode as Python gives them, for kernels of the GPU.
#pragma once

#include <cmath>

#include "cuda/attention/attention.h"
#include "cuda/ops/operands.h"

namespace minillm::attention {

// window, softcap and sinks (NH), checked; n gets the first two. Returns the sinks, or null for none.
template <class T>
const T* options_of(Operands& on, Sizes& n, int64_t window, double softcap, const Object& sinks) {
    if (window < 0) fail("window must be an integer of at least 0: got ", window);
    if (!(softcap >= 0 && softcap < INFINITY)) fail("softcap must be a number of at least 0: got ", softcap);
    n.window = window < int64_t(n.T) + n.past ? int(window) : 0;                // a longer one bounds nothing
    n.cap = softcap;
    return sinks.is_none() ? nullptr : on.input<T>("sinks", argument<Array>(sinks, "sinks"), {n.NH});
}

inline void check_head(const char* name, int64_t HS, int64_t tokens) {
    if (HS > 256) fail(name, " must have at most 256 numbers a head: got ", HS);
    if (tokens > 0x7fffffff) fail(name, " must have fewer than 2^31 tokens: got ", tokens);
}

// Heads side by side: (B, T, heads * HS).
template <class T>
View<T> side_by_side(T* data, int64_t rows, int64_t heads, int64_t HS) {
    return {data, rows * heads * HS, HS, heads * HS};
}

}  // namespace minillm::attention
