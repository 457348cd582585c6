// Device memory on the emulator: arrays between guard zones, and which stream may touch them.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using stream_t = void*;

namespace emu {
constexpr size_t GUARD = 1024;  // bytes watched on either side of an array
constexpr int FILL = 0xff;  // makes every float type NaN
constexpr int GUARD_FILLS = 7, SHARED_GUARD = GUARD_FILLS - 1;  // patterns of guard zones; that of shared memory

// What stands in a guard zone: NaN for who reads there, of 16-bit words 0xfff8 to 0xfffe. Not FILL, since a kernel that
// stores beyond an array may store what it has read in fresh memory; nor one pattern alone, since it may have read
// beyond another array.
inline const unsigned char* guard_fill(int pattern) {
    static const auto fills = [] {
        std::vector<std::vector<unsigned char>> made(GUARD_FILLS, std::vector<unsigned char>(GUARD, 0xff));
        for (int which = 0; which < GUARD_FILLS; which++)
            for (size_t i = 0; i < GUARD; i += 2) made[which][i] = static_cast<unsigned char>(0xf8 + which);
        return made;
    }();
    return fills[pattern].data();
}
inline void make_guards(unsigned char* begin, size_t bytes, int pattern) {
    std::memcpy(begin - GUARD, guard_fill(pattern), GUARD);
    std::memcpy(begin + bytes, guard_fill(pattern), GUARD);
}
inline void check_guard(const unsigned char* from, int pattern, const char* what) {
    if (std::memcmp(from, guard_fill(pattern), GUARD))
        throw std::runtime_error(std::string("a kernel wrote outside its ") + what);
}

// Device memory: fresh arrays hold NaN, between guard zones; those of arrays made one after the other differ.
struct Allocation {
    unsigned char* memory;
    size_t bytes;
    stream_t stream;  // which allocated it, or was the last to use it
    int guard = 0;  // the pattern of its guard zones
    bool settled = false;  // and has been waited for since
    const unsigned char* begin() const { return memory + GUARD; }
};
inline std::vector<Allocation> allocations;
inline int64_t bytes_in_use = 0, peak = 0;
inline std::string fault_of_a_release;  // told by the next launch or copy, since `release` may not throw

// "" if work on `stream` may touch the array: what other streams do with it is over.
inline std::string out_of_order(const Allocation& a, stream_t stream, const char* what) {
    if (a.stream == stream || a.settled) return "";
    return std::string(what) + " an array of " + std::to_string(a.bytes) +
           " bytes that another stream has allocated or used, and nobody has waited for that stream";
}
// Work on `stream` that takes the array around this address, if there is one.
inline void use_array(const void* address, stream_t stream, const char* what) {
    if (!fault_of_a_release.empty()) throw std::runtime_error(std::exchange(fault_of_a_release, ""));
    const auto* p = static_cast<const unsigned char*>(address);
    for (Allocation& a : allocations) {
        if (p < a.begin() || p > a.begin() + a.bytes || (p == a.begin() + a.bytes && a.bytes)) continue;
        if (const std::string why = out_of_order(a, stream, what); !why.empty()) throw std::runtime_error(why);
        a.stream = stream;
        a.settled = false;
    }
}
// The same for each address in a kernel's argument, which may be a record of several.
template <class T>
void use_arrays_of(const T& argument, stream_t stream) {
    static_assert(std::is_trivially_copyable_v<T>, "kernels get plain bytes");
    for (size_t at = 0; at + sizeof(void*) <= sizeof(T); at += alignof(void*)) {
        const void* word;
        std::memcpy(&word, reinterpret_cast<const char*>(&argument) + at, sizeof word);
        if (word) use_array(word, stream, "a launch takes");
    }
}

inline void check_device_guards() {
    for (const Allocation& a : allocations) {
        check_guard(a.memory, a.guard, "device arrays (before the first element)");
        check_guard(a.begin() + a.bytes, a.guard, "device arrays (past the last element)");
    }
}
}  // namespace emu
