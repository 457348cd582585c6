// 16-bit floats: a value is computed in float and rounded to nearest even after each operation, as the hardware does.
#pragma once

#include <cmath>

#include "words.h"

namespace minillm_cuda {
MINILLM_INLINE unsigned float_bits(float x) {
    unsigned u;
    __builtin_memcpy(&u, &x, 4);
    return u;
}
MINILLM_INLINE float bits_float(unsigned u) {
    float x;
    __builtin_memcpy(&x, &u, 4);
    return x;
}

// 1 sign, 5 exponent, 10 fraction bits.
struct HalfFormat {
    static unsigned short narrow(float x) {
        const unsigned u = float_bits(x), sign = u >> 16 & 0x8000, size = u & 0x7fffffff;
        if (size > 0x7f800000) return 0x7fff;
        if (size >= 0x477ff000) return static_cast<unsigned short>(sign | 0x7c00);         // from 65520 on: infinity
        if (size < 0x38800000)  // below 2^-14: steps of 2^-24
            return static_cast<unsigned short>(sign | (float_bits(bits_float(size) + 0.5f) - 0x3f000000));
        const unsigned rounded = size + 0xfff + (size >> 13 & 1);
        return static_cast<unsigned short>(sign | (rounded - 0x38000000) >> 13);
    }
    static float widen(unsigned short h) {
        const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
        if (exponent == 31) return bits_float(sign | 0x7f800000 | fraction << 13);
        if (exponent) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
        const float size = static_cast<float>(fraction) / 16777216;
        return sign ? -size : size;
    }
};
// The upper half of a float.
struct Bfloat16Format {
    static unsigned short narrow(float x) {
        const unsigned u = float_bits(x);
        if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
        return static_cast<unsigned short>((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    static float widen(unsigned short h) { return bits_float(static_cast<unsigned>(h) << 16); }
};

template <class Format>
struct alignas(2) Small {
    unsigned short bits;
    Small() = default;
    Small(float x) : bits(Format::narrow(x)) {}
    Small(double x) : bits(Format::narrow(static_cast<float>(x))) {}
    Small(int x) : bits(Format::narrow(static_cast<float>(x))) {}
    Small(unsigned x) : bits(Format::narrow(static_cast<float>(x))) {}
    Small(long x) : bits(Format::narrow(static_cast<float>(x))) {}
    Small(long long x) : bits(Format::narrow(static_cast<float>(x))) {}
    template <class Other>
    explicit Small(const Small<Other>& x) : bits(Format::narrow(static_cast<float>(x))) {}
    operator float() const { return Format::widen(bits); }
    Small& operator+=(Small x) { return *this = *this + x; }
    Small& operator-=(Small x) { return *this = *this - x; }
    Small& operator*=(Small x) { return *this = *this * x; }
    Small& operator/=(Small x) { return *this = *this / x; }
    friend Small operator-(Small x) { return Small(-static_cast<float>(x)); }
#define MINILLM_SMALL(op) \
    friend Small operator op(Small a, Small b) { return Small(static_cast<float>(a) op static_cast<float>(b)); }
    MINILLM_SMALL(+)
    MINILLM_SMALL(-)
    MINILLM_SMALL(*)
    MINILLM_SMALL(/)
#undef MINILLM_SMALL
#define MINILLM_SMALL(op) \
    friend bool operator op(Small a, Small b) { return static_cast<float>(a) op static_cast<float>(b); }
    MINILLM_SMALL(<)
    MINILLM_SMALL(>)
    MINILLM_SMALL(<=)
    MINILLM_SMALL(>=)
    MINILLM_SMALL(==)
    MINILLM_SMALL(!=)
#undef MINILLM_SMALL
};
template <class Format>
struct alignas(4) Small2 {
    Small<Format> x, y;
    Small2() = default;
    Small2(Small<Format> x, Small<Format> y) : x(x), y(y) {}
    friend Small2 operator+(Small2 a, Small2 b) { return {a.x + b.x, a.y + b.y}; }
    friend Small2 operator-(Small2 a, Small2 b) { return {a.x - b.x, a.y - b.y}; }
    friend Small2 operator*(Small2 a, Small2 b) { return {a.x * b.x, a.y * b.y}; }
    friend Small2 operator/(Small2 a, Small2 b) { return {a.x / b.x, a.y / b.y}; }
    friend Small2 operator-(Small2 a) { return {-a.x, -a.y}; }
    Small2& operator+=(Small2 b) { return *this = *this + b; }
    Small2& operator-=(Small2 b) { return *this = *this - b; }
    Small2& operator*=(Small2 b) { return *this = *this * b; }
    friend bool operator==(Small2 a, Small2 b) { return a.x == b.x && a.y == b.y; }
};

template <class F>
MINILLM_INLINE Small<F> small_fma(Small<F> a, Small<F> b, Small<F> c) {
    return Small<F>(static_cast<double>(static_cast<float>(a)) * static_cast<float>(b) + static_cast<float>(c));
}
template <class To, class From>
MINILLM_INLINE To small_bits(From x) {
    To y;
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}
}  // namespace minillm_cuda

// The functions that both formats have under the same names.
#define MINILLM_SMALL_1(name, value)                                                        \
    template <class F>                                                                      \
    MINILLM_INLINE minillm_cuda::Small<F> name(minillm_cuda::Small<F> a) {                  \
        const float x = a;                                                                  \
        return minillm_cuda::Small<F>(float(value));                                        \
    }                                                                                       \
    template <class F>                                                                      \
    MINILLM_INLINE minillm_cuda::Small2<F> MINILLM_PAIR_##name(minillm_cuda::Small2<F> a) { \
        return {name(a.x), name(a.y)};                                                      \
    }
#define MINILLM_PAIR_hexp h2exp
#define MINILLM_PAIR_hexp2 h2exp2
#define MINILLM_PAIR_hlog h2log
#define MINILLM_PAIR_hlog2 h2log2
#define MINILLM_PAIR_hsqrt h2sqrt
#define MINILLM_PAIR_hrsqrt h2rsqrt
#define MINILLM_PAIR_hrcp h2rcp
#define MINILLM_PAIR_hsin h2sin
#define MINILLM_PAIR_hcos h2cos
#define MINILLM_PAIR_hfloor h2floor
#define MINILLM_PAIR_hceil h2ceil
#define MINILLM_PAIR_hrint h2rint
#define MINILLM_PAIR_htrunc h2trunc
#define MINILLM_PAIR_htanh h2tanh
#define MINILLM_PAIR___hneg __hneg2
#define MINILLM_PAIR___habs __habs2
MINILLM_SMALL_1(hexp, expf(x))
MINILLM_SMALL_1(hexp2, exp2f(x))
MINILLM_SMALL_1(hlog, logf(x))
MINILLM_SMALL_1(hlog2, log2f(x))
MINILLM_SMALL_1(hsqrt, sqrtf(x))
MINILLM_SMALL_1(hrsqrt, 1 / sqrtf(x))
MINILLM_SMALL_1(hrcp, 1 / x)
MINILLM_SMALL_1(hsin, sinf(x))
MINILLM_SMALL_1(hcos, cosf(x))
MINILLM_SMALL_1(hfloor, floorf(x))
MINILLM_SMALL_1(hceil, ceilf(x))
MINILLM_SMALL_1(hrint, nearbyintf(x))
MINILLM_SMALL_1(htrunc, truncf(x))
MINILLM_SMALL_1(htanh, tanhf(x))
MINILLM_SMALL_1(__hneg, -x)
MINILLM_SMALL_1(__habs, fabsf(x))
#undef MINILLM_SMALL_1

#define MINILLM_SMALL_2(name, pair, value)                                                              \
    template <class F>                                                                                  \
    MINILLM_INLINE minillm_cuda::Small<F> name(minillm_cuda::Small<F> a, minillm_cuda::Small<F> b) {    \
        const float x = a, y = b;                                                                       \
        return minillm_cuda::Small<F>(float(value));                                                    \
    }                                                                                                   \
    template <class F>                                                                                  \
    MINILLM_INLINE minillm_cuda::Small2<F> pair(minillm_cuda::Small2<F> a, minillm_cuda::Small2<F> b) { \
        return {name(a.x, b.x), name(a.y, b.y)};                                                        \
    }
MINILLM_SMALL_2(__hadd, __hadd2, x + y)
MINILLM_SMALL_2(__hadd_rn, __hadd2_rn, x + y)
MINILLM_SMALL_2(__hsub, __hsub2, x - y)
MINILLM_SMALL_2(__hmul, __hmul2, x* y)
MINILLM_SMALL_2(__hmul_rn, __hmul2_rn, x* y)
MINILLM_SMALL_2(__hdiv, __h2div, x / y)
MINILLM_SMALL_2(__hmax, __hmax2, fmaxf(x, y))
MINILLM_SMALL_2(__hmin, __hmin2, fminf(x, y))
MINILLM_SMALL_2(max, minillm_max2, fmaxf(x, y))
MINILLM_SMALL_2(min, minillm_min2, fminf(x, y))
#undef MINILLM_SMALL_2

#define MINILLM_SMALL_COMPARE(name, op)                                                                    \
    template <class F>                                                                                     \
    MINILLM_INLINE bool name(minillm_cuda::Small<F> a, minillm_cuda::Small<F> b) {                         \
        return static_cast<float>(a) op static_cast<float>(b);                                             \
    }                                                                                                      \
    template <class F>                                                                                     \
    MINILLM_INLINE minillm_cuda::Small2<F> name##2(minillm_cuda::Small2<F> a, minillm_cuda::Small2<F> b) { \
        return {minillm_cuda::Small<F>(name(a.x, b.x)), minillm_cuda::Small<F>(name(a.y, b.y))};           \
    }
MINILLM_SMALL_COMPARE(__hlt, <)
MINILLM_SMALL_COMPARE(__hgt, >)
MINILLM_SMALL_COMPARE(__hle, <=)
MINILLM_SMALL_COMPARE(__hge, >=)
MINILLM_SMALL_COMPARE(__heq, ==)
MINILLM_SMALL_COMPARE(__hne, !=)
#undef MINILLM_SMALL_COMPARE
template <class F>
MINILLM_INLINE minillm_cuda::Small<F> __hfma(minillm_cuda::Small<F> a, minillm_cuda::Small<F> b,
                                             minillm_cuda::Small<F> c) {
    return minillm_cuda::small_fma(a, b, c);
}
template <class F>
MINILLM_INLINE minillm_cuda::Small2<F> __hfma2(minillm_cuda::Small2<F> a, minillm_cuda::Small2<F> b,
                                               minillm_cuda::Small2<F> c) {
    return {minillm_cuda::small_fma(a.x, b.x, c.x), minillm_cuda::small_fma(a.y, b.y, c.y)};
}
template <class F>
MINILLM_INLINE bool __hisnan(minillm_cuda::Small<F> a) {
    return std::isnan(static_cast<float>(a));
}
template <class F>
MINILLM_INLINE int __hisinf(minillm_cuda::Small<F> a) {
    const float x = a;
    return std::isinf(x) ? (x > 0 ? 1 : -1) : 0;
}
template <class F>
MINILLM_INLINE float __low2float(minillm_cuda::Small2<F> a) {
    return a.x;
}
template <class F>
MINILLM_INLINE float __high2float(minillm_cuda::Small2<F> a) {
    return a.y;
}

// Conversions, whose names hold the type: T and T2 are the types, t the word within the names.
#define MINILLM_SMALL_NAMES(T, T2, t)                                                          \
    MINILLM_INLINE T __float2##t(float x) { return T(x); }                                     \
    MINILLM_INLINE T __float2##t##_rn(float x) { return T(x); }                                \
    MINILLM_INLINE T __double2##t(double x) { return T(x); }                                   \
    MINILLM_INLINE T __int2##t##_rn(int x) { return T(x); }                                    \
    MINILLM_INLINE T __uint2##t##_rn(unsigned x) { return T(x); }                              \
    MINILLM_INLINE float __##t##2float(T x) { return x; }                                      \
    MINILLM_INLINE int __##t##2int_rn(T x) { return static_cast<int>(nearbyintf(x)); }         \
    MINILLM_INLINE int __##t##2int_rz(T x) { return static_cast<int>(static_cast<float>(x)); } \
    MINILLM_INLINE T2 __float2##t##2_rn(float x) { return {T(x), T(x)}; }                      \
    MINILLM_INLINE T2 __floats2##t##2_rn(float x, float y) { return {T(x), T(y)}; }            \
    MINILLM_INLINE T2 __float22##t##2_rn(float2 x) { return {T(x.x), T(x.y)}; }                \
    MINILLM_INLINE float2 __##t##22float2(T2 x) { return {float(x.x), float(x.y)}; }           \
    MINILLM_INLINE T2 __##t##2##t##2(T x) { return {x, x}; }                                   \
    MINILLM_INLINE T2 __##t##s2##t##2(T x, T y) { return {x, y}; }                             \
    MINILLM_INLINE T2 make_##T2(T x, T y) { return {x, y}; }                                   \
    MINILLM_INLINE T __low2##t(T2 x) { return x.x; }                                           \
    MINILLM_INLINE T __high2##t(T2 x) { return x.y; }                                          \
    MINILLM_INLINE T2 __low2##t##2(T2 x) { return {x.x, x.x}; }                                \
    MINILLM_INLINE T2 __high2##t##2(T2 x) { return {x.y, x.y}; }                               \
    MINILLM_INLINE T2 __lowhigh2highlow(T2 x) { return {x.y, x.x}; }                           \
    MINILLM_INLINE short __##t##_as_short(T x) { return minillm_cuda::small_bits<short>(x); }  \
    MINILLM_INLINE unsigned short __##t##_as_ushort(T x) { return x.bits; }                    \
    MINILLM_INLINE T __short_as_##t(short x) { return minillm_cuda::small_bits<T>(x); }        \
    MINILLM_INLINE T __ushort_as_##t(unsigned short x) { return minillm_cuda::small_bits<T>(x); }
