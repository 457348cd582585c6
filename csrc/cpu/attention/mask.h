// What a row of scores sees: shared by the float kernels and those in bfloat16.
#pragma once

#include <algorithm>

#include "cpu/simd/vec.h"

namespace minillm::attention {

constexpr int64_t BLOCK = 64;                              // queries, or keys

// v in the lanes whose column, counted from `column`, is at most `last`; `hidden` in the others.
template <class T>
Vec<T> causal(Vec<T> v, int64_t column, int64_t last, T hidden) {
    return lane_numbers<T>() <= typename LaneInt<T>::type(last - column) ? v : splat<T>(hidden);
}

// v in the lanes whose column is after `before`; `hidden` in the others: the left border of a window.
template <class T>
Vec<T> within(Vec<T> v, int64_t column, int64_t before, T hidden) {
    return lane_numbers<T>() > typename LaneInt<T>::type(before - column) ? v : splat<T>(hidden);
}

// How many of a block's columns a row sees whose last visible column is `last`, counted from the block's first.
inline int64_t visible(int64_t last) { return std::clamp<int64_t>(last + 1, 0, BLOCK); }

template <class T>
int64_t vectors_for(int64_t columns) {
    return (columns + WIDTH<T> - 1) / WIDTH<T>;
}

}  // namespace minillm::attention
