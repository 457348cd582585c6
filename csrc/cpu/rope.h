// The kernel of rope that decode_llama.cpp uses as well.
#pragma once

#include <cstdint>

namespace minillm::rope {

// One head: `half` pairs of numbers `apart` places from each other, a pair each `step` places.
template <class T>
void rotate_head(T* out, const T* x, const T* cos, const T* sin, T sign, int64_t half, int64_t apart, int64_t step) {
    for (int64_t i = 0; i < half; i++) {
        T a = x[i * step], b = x[i * step + apart], s = sign * sin[i];
        out[i * step] = a * cos[i] - b * s;
        out[i * step + apart] = b * cos[i] + a * s;
    }
}

}  // namespace minillm::rope
