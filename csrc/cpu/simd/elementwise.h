// The loops of every op that treats each number by itself.
#pragma once

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"

namespace minillm {

// out[i] = f(in[i]...) for i < n, f on whole vectors. Parallel over blocks; the last vector is padded, so all elements
// go through the same code, and their bits do not depend on where they stand.
template <class T, class F, class... In>
void elementwise(int64_t n, T* out, F f, const In*... in) {
    constexpr int64_t BLOCK = 1 << 13;
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        int64_t i = block * BLOCK, end = std::min(n, i + BLOCK);
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) store(out + i, f(load(in + i)...));
        if (i < end) store_part(out + i, f(load_part(in + i, end - i)...), end - i);
    }
}

// The same with two results: f sets the vector of the second, its first argument, and returns that of the first.
template <class T, class F, class... In>
void elementwise(int64_t n, T* out, T* second, F f, const In*... in) {
    constexpr int64_t BLOCK = 1 << 13;
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        int64_t i = block * BLOCK, end = std::min(n, i + BLOCK);
        Vec<T> other;
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) {
            store(out + i, f(other, load(in + i)...));
            store(second + i, other);
        }
        if (i < end) {
            store_part(out + i, f(other, load_part(in + i, end - i)...), end - i);
            store_part(second + i, other, end - i);
        }
    }
}

}  // namespace minillm
