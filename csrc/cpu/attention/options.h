// The options of grouped_attention and attention_decode as Python gives them.
#pragma once

#include <cmath>

#include "cpu/attention/heads.h"
#include "python/register.h"

namespace minillm::attention {

// The options of every query head, which differ in their sinks only.
template <class T>
struct HeadOptions {
    Options<T> all;
    const T* sinks;                                                        // (NH), or null
    Options<T> of_head(int64_t h) const { return {all.window, sinks ? sinks[h] : all.sink, all.cap}; }
};

template <class T>
HeadOptions<T> options_of(int64_t window, const Object& sinks, double softcap, int64_t n_head) {
    if (window < 0) fail("window must be an integer of at least 0: got ", window);
    if (!(softcap >= 0 && softcap < INFINITY)) fail("softcap must be a number of at least 0: got ", softcap);
    Options<T> all;
    if (window) all.window = window;
    all.cap = softcap;
    return {all, sinks.is_none() ? nullptr : input<T>("sinks", argument<Array>(sinks, "sinks"), {n_head})};
}

// The same from a cache, whose sinks are an empty array where there are none.
template <class T>
HeadOptions<T> cached_options(const Tuple& cache, int64_t i, int64_t n_head) {
    int64_t window = cached<int64_t>(cache, i);
    Array sinks = cached(cache, i + 1);
    double softcap = cached<double>(cache, i + 2);
    if (window < 0) fail("cached window must be an integer of at least 0: got ", window);
    if (!(softcap >= 0 && softcap < INFINITY)) fail("cached softcap must be a number of at least 0: got ", softcap);
    const bool none = sinks.shape == Shape{0};
    input<T>("cached sinks", sinks, {none ? 0 : n_head});
    return options_of<T>(window, none ? Object() : sinks, softcap, n_head);
}

}  // namespace minillm::attention
