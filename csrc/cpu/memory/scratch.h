// Working memory of kernels, aligned for vectors.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace minillm {

// Memory that outlives a call, so that its pages are not faulted in again each time. Grows, never shrinks.
template <class T>
struct Scratch {
    T* data = nullptr;
    int64_t size = 0;

    T* at_least(int64_t n) {
        if (n <= size) return data;
        constexpr size_t PAGE = 1 << 21;                                  // a huge page: fewer misses of the TLB
        size_t bytes = n * sizeof(T), alignment = bytes < PAGE ? 64 : PAGE;
        std::free(data);
        size = 0;
        data = static_cast<T*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
        if (!data) throw std::bad_alloc();
        if (alignment == PAGE) madvise(data, bytes, MADV_HUGEPAGE);
        size = n;
        return data;
    }
    ~Scratch() { std::free(data); }
};

// Memory that starts on a cache line, so that no packed vector straddles two. It starts as zeros.
template <class T>
class TileMemory {
    struct alignas(64) Line { char bytes[64]; };
    std::vector<Line> lines;

public:
    explicit TileMemory(int64_t n) : lines((n * sizeof(T) + 63) / 64) {}
    T* data() { return reinterpret_cast<T*>(lines.data()); }
};

}  // namespace minillm
