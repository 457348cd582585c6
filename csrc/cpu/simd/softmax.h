// Pieces of a softmax over a row of logits: its maximum, its sum of exponentials, and both kept running over tiles.
#pragma once

#include <algorithm>
#include <cmath>

#include "cpu/simd/math.h"

namespace minillm {

template <class T>
T row_max(const T* z, int64_t V) {
    Vec<T> top = splat<T>(-INFINITY), top2 = top;                    // two, so that one need not wait for the other
    int64_t i = 0;
    for (; i + 2 * WIDTH<T> <= V; i += 2 * WIDTH<T>) {
        top = vmax<T>(load(z + i), top);
        top2 = vmax<T>(load(z + i + WIDTH<T>), top2);
    }
    for (; i < V; i += WIDTH<T>) top = vmax<T>(load_part(z + i, std::min(WIDTH<T>, V - i), T(-INFINITY)), top);
    top = vmax<T>(top, top2);
    T best = top[0];
    for (int64_t lane = 1; lane < WIDTH<T>; lane++) best = std::max(best, top[lane]);
    return best;
}

// Sum of exp((z - top) * scale), in pieces of SUM_BLOCK, to keep its rounding small.
template <class T>
T row_exp_sum(const T* z, T top, int64_t V, T scale = 1) {
    constexpr int64_t SUM_BLOCK = 1024;
    T total = 0;
    for (int64_t begin = 0; begin < V; begin += SUM_BLOCK) {
        int64_t i = begin, end = std::min(V, begin + SUM_BLOCK);
        Vec<T> piece{};
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) piece += vexp<T>((load(z + i) - top) * scale);
        if (i < end) piece += vexp<T>((load_part(z + i, end - i, T(-INFINITY)) - top) * scale);
        total += sum<T>(piece);
    }
    return total;
}

// What a row knows after some tiles: the largest logit, the sum of exp(z - top), the target's logit.
template <class T>
struct OnlineSoftmax {
    T top = -INFINITY, total = 0, right = 0;

    void add(const T* z, int64_t n, int64_t target) {
        T larger = std::max(top, row_max(z, n));
        total = total * std::exp(top - larger) + row_exp_sum(z, larger, n);
        top = larger;
        if (target >= 0) right = z[target];
    }
};

// What the backward needs to know of each row, (N,) each.
template <class T>
struct RowSums {
    T *top, *logsum;

    void set(int64_t row, const OnlineSoftmax<T>& softmax) const {
        top[row] = softmax.top;
        logsum[row] = std::log(softmax.total);
    }
    T loss(int64_t row, const OnlineSoftmax<T>& softmax) const { return logsum[row] + (top[row] - softmax.right); }
};

}  // namespace minillm
