// How much shared memory a block may ask for.
#pragma once

#include <cstddef>

namespace gpu {
// Bytes, by compute capability: 99 KB on 8.6, 8.9 and 12.0, 163 on 8.0 and 8.7, 227 on 9.0 to 11.0.
inline size_t shared_limit(int capability) {
    const bool large = capability == 80 || capability == 87, largest = capability >= 90 && capability < 120;
    return size_t(largest ? 227 : large ? 163 : 99) << 10;
}
}  // namespace gpu
