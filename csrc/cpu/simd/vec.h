// SIMD vectors that read like scalars: the vector extension of GCC and Clang, as wide as the instruction set of this build.
//
// Vec<float> holds 16 numbers under AVX-512, 8 under AVX2, 4 in the baseline build; `a * b + c` is one fused
// multiply-add where the machine has it. Nothing here is x86-only: the baseline build is SSE2 or NEON, whatever the CPU has.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace minillm {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

// A loop of a few turns, known to the compiler, that leaves no loop behind: what it indexes can live in registers.
#define UNROLL_FOR(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)

template <class T>
struct VecOf {
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
struct LaneInt;  // the integer as wide as a T: what a comparison of two Vec<T> has in its lanes
template <>
struct LaneInt<float> {
    typedef int32_t type;
};
template <>
struct LaneInt<int32_t> {
    typedef int32_t type;
};
template <>
struct LaneInt<uint32_t> {
    typedef int32_t type;
};
template <>
struct LaneInt<double> {
    typedef int64_t type;
};

template <class T>
constexpr int64_t WIDTH = VECTOR_BYTES / sizeof(T);

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

template <class T>
inline Vec<T> load(const T* p) {  // unaligned
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
    std::memcpy(p, &v, sizeof v);
}

// The first n lanes, for the end of a row; the others hold `fill`, and are not written back.
template <class T>
inline Vec<T> load_part(const T* p, int64_t n, T fill = 0) {
    Vec<T> v = fill - Vec<T>{};
    std::memcpy(&v, p, n * sizeof(T));
    return v;
}

template <class T>
inline void store_part(T* p, Vec<T> v, int64_t n) {
    std::memcpy(p, &v, n * sizeof(T));
}

template <class T>
inline Vec<T> splat(T x) {
    return x - Vec<T>{};
}

// Vectors of lane numbers, written out at compile time: a shuffle by a constant is one instruction, by a variable many.
template <class T>
using Lanes = Vec<typename LaneInt<T>::type>;

template <class T, size_t... I>
inline Lanes<T> lane_numbers(std::index_sequence<I...>) {
    return Lanes<T>{typename LaneInt<T>::type(I)...};
}

template <class T>
inline Lanes<T> lane_numbers() {
    return lane_numbers<T>(std::make_index_sequence<WIDTH<T>>());
}  // 0, 1, 2, ...

// Lanes I... of a and b, counted through both.
template <int... I, class V>
inline V shuffle(V a, V b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, I...);
#else
    typedef std::remove_reference_t<decltype(a[0])> T;
    typedef std::conditional_t<sizeof(T) == 2, uint16_t,
                               typename LaneInt<std::conditional_t<sizeof(T) == 2, float, T>>::type>
        Int;
    typedef Int Mask __attribute__((vector_size(sizeof(V))));
    return __builtin_shuffle(a, b, Mask{Int(I)...});
#endif
}

// Lane i of the result is lane i ^ HALF of v.
template <class T, int HALF, size_t... I>
inline Vec<T> swap_lanes(Vec<T> v, std::index_sequence<I...>) {
    return shuffle<int(I ^ HALF)...>(v, v);
}

// All lanes by `both` of two vectors, in a fixed order: halves are folded onto each other.
template <class T, int HALF = WIDTH<T> / 2, class Both>
inline T folded(Vec<T> v, const Both& both) {
    if constexpr (HALF == 0) return v[0];
    else {
        Vec<T> other = swap_lanes<T, HALF>(v, std::make_index_sequence<WIDTH<T>>());
        return folded<T, HALF / 2>(both(v, other), both);
    }
}

template <class T>
inline T sum(Vec<T> v) {
    return folded<T>(v, [](Vec<T> a, Vec<T> b) { return a + b; });
}

template <class T>
inline T largest(Vec<T> v) {
    return folded<T>(v, [](Vec<T> a, Vec<T> b) { return a > b ? a : b; });
}

// Transposes a square, WIDTH vectors. Each round interleaves the first half of them with the second (a perfect shuffle
// of all numbers); log2(WIDTH) rounds make a transposition.
template <class T, size_t... I>
inline void transpose(Vec<T>* v, std::index_sequence<I...>) {
    constexpr int W = WIDTH<T>;
    UNROLL_FOR (int round = 1; round < W; round *= 2) {
        Vec<T> next[W];
        UNROLL_FOR (int i = 0; i < W / 2; i++) {
            next[2 * i] = shuffle<int(I / 2 + I % 2 * W)...>(v[i], v[i + W / 2]);
            next[2 * i + 1] = shuffle<int(W / 2 + I / 2 + I % 2 * W)...>(v[i], v[i + W / 2]);
        }
        UNROLL_FOR (int i = 0; i < W; i++) v[i] = next[i];
    }
}

template <class T>
inline void transpose(Vec<T>* v) {
    transpose<T>(v, std::make_index_sequence<WIDTH<T>>());
}

}  // namespace minillm
