// The gradient of a bias: a sum over rows.
#pragma once

#include <algorithm>

#include "cpu/isa/threads.h"
#include "cpu/memory/scratch.h"
#include "cpu/simd/bfloat16.h"

namespace minillm {

// sums[j] (+)= sum over rows of x[row, j]: CHUNKS pieces, each summed in order, then the pieces in order. Nothing if
// sums is null.
template <class T, class S>
void column_sums(T* sums, const S* x, int64_t rows, int64_t columns, bool accumulate = false) {
    if (!sums) return;
    thread_local Scratch<T> scratch;
    T* partial = scratch.at_least(CHUNKS * columns);              // (CHUNKS, columns)
#pragma omp parallel for schedule(dynamic) if (rows * columns > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        T* p = partial + chunk * columns;
        std::fill(p, p + columns, T(0));
        Range range = chunk_of(rows, chunk);
        for (int64_t row = range.begin; row < range.end; row++)
            for (int64_t j = 0; j < columns; j++) p[j] += number(x[row * columns + j]);
    }
    if (!accumulate) std::fill(sums, sums + columns, T(0));
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++)
        for (int64_t j = 0; j < columns; j++) sums[j] += partial[chunk * columns + j];
}

}  // namespace minillm
