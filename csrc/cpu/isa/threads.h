// OpenMP in one place. Work is cut into a fixed number of chunks, whatever the number of threads, so that a sum over
// chunks has one order and results do not depend on how many threads there are.
#pragma once

#include "cpu/isa/openmp.h"

#include <algorithm>
#include <cstdint>

namespace minillm {

constexpr int64_t CHUNKS = 16;      // pieces of a reduction over rows

struct Range { int64_t begin, end; };

inline Range chunk_of(int64_t n, int64_t chunk) { return {n * chunk / CHUNKS, n * (chunk + 1) / CHUNKS}; }

}  // namespace minillm
