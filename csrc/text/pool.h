// Memory: tables that begin as zeros, and the growing buffer of ids that becomes a NumPy array.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace minillm::text {
// A table is touched all over at random, so it is worth huge pages where the system has them.
inline void ask_for_huge_pages([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

constexpr size_t LARGE = 1 << 22;

// The same for memory of malloc's: each page of 4 KB that is written first costs microseconds on a virtual machine.
inline void ask_for_huge_pages_inside(void* p, size_t bytes) {
    size_t before = reinterpret_cast<uintptr_t>(p) & 4095;       // from where its first page begins
    ask_for_huge_pages(static_cast<char*>(p) - before, bytes + before);
}

// A table of zeros.
template <class T>
struct Zeros {
    T* data = nullptr;
    size_t size = 0;
    explicit Zeros(size_t n) : size(n) {
        data = static_cast<T*>(std::aligned_alloc(1 << 21, (n * sizeof(T) + (1 << 21) - 1) >> 21 << 21));
        if (!data) throw std::bad_alloc();
        ask_for_huge_pages(data, n * sizeof(T));
        clear();
    }
    Zeros(const Zeros&) = delete;
    ~Zeros() { std::free(data); }
    void swap(Zeros& other) { std::swap(data, other.data), std::swap(size, other.size); }
    void clear() { memset(static_cast<void*>(data), 0, size * sizeof(T)); }
};

// A growing buffer of ids.
template <class T>
class Sink {
    size_t capacity = 0;

public:
    T* data = nullptr;
    size_t count = 0;

    Sink() = default;
    Sink(Sink&& other) { swap(other); }
    ~Sink() { std::free(data); }
    void swap(Sink& other) {
        std::swap(data, other.data), std::swap(count, other.count), std::swap(capacity, other.capacity);
    }

    void reserve(size_t n) {
        if (n <= capacity) return;
        capacity = std::max(n, capacity + capacity / 2);
        T* larger = static_cast<T*>(std::realloc(data, capacity * sizeof(T)));
        if (!larger) throw std::bad_alloc();
        data = larger;
        if (capacity * sizeof(T) >= LARGE) ask_for_huge_pages_inside(data, capacity * sizeof(T));
    }

    // Where the next `n` ids may be written; then `count` has to be moved on.
    T* room(size_t n) {
        reserve(count + n);
        return data + count;
    }

    template <class U>
    void append(const U* ids, size_t n) {
        std::copy(ids, ids + n, room(n));
        count += n;
    }

    // Hands over the memory, cut to size.
    T* release() {
        T* fitting = static_cast<T*>(std::realloc(data, std::max<size_t>(count * sizeof(T), 1)));
        T* result = fitting ? fitting : data;
        data = nullptr, count = capacity = 0;
        return result;
    }
};
}  // namespace minillm::text
