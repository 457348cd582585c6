// CUDA's mathematics: what <math.h> lacks. Fast versions are the exact functions here: no kernel may count on less.
#pragma once

#include <math.h>

#include <cmath>

#include "words.h"

#define MINILLM_MIN_MAX(A, B, T)                                                              \
    MINILLM_INLINE T min(A a, B b) {                                                          \
        return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a); \
    }                                                                                         \
    MINILLM_INLINE T max(A a, B b) {                                                          \
        return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a); \
    }
MINILLM_MIN_MAX(int, int, int)
MINILLM_MIN_MAX(unsigned, unsigned, unsigned)
MINILLM_MIN_MAX(int, unsigned, unsigned)
MINILLM_MIN_MAX(unsigned, int, unsigned)
MINILLM_MIN_MAX(long, long, long)
MINILLM_MIN_MAX(unsigned long, unsigned long, unsigned long)
MINILLM_MIN_MAX(long, int, long)
MINILLM_MIN_MAX(int, long, long)
MINILLM_MIN_MAX(unsigned long, int, unsigned long)
MINILLM_MIN_MAX(int, unsigned long, unsigned long)
MINILLM_MIN_MAX(unsigned long, unsigned, unsigned long)
MINILLM_MIN_MAX(unsigned, unsigned long, unsigned long)
MINILLM_MIN_MAX(long long, long long, long long)
MINILLM_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef MINILLM_MIN_MAX
// The number wins over NaN.
MINILLM_INLINE float min(float a, float b) { return fminf(a, b); }
MINILLM_INLINE float max(float a, float b) { return fmaxf(a, b); }
MINILLM_INLINE double min(double a, double b) { return fmin(a, b); }
MINILLM_INLINE double max(double a, double b) { return fmax(a, b); }
MINILLM_INLINE double min(float a, double b) { return fmin(a, b); }
MINILLM_INLINE double max(float a, double b) { return fmax(a, b); }
MINILLM_INLINE double min(double a, float b) { return fmin(a, b); }
MINILLM_INLINE double max(double a, float b) { return fmax(a, b); }

#define MINILLM_NUMBER(R, name, parameters, value) \
    MINILLM_INLINE R name parameters { return value; }
#define MINILLM_ONE(name, value) MINILLM_NUMBER(float, name, (float x), value)
#define MINILLM_TWO(name, value) MINILLM_NUMBER(float, name, (float x, float y), value)
MINILLM_ONE(__expf, expf(x))
MINILLM_ONE(__exp10f, powf(10, x))
MINILLM_ONE(__logf, logf(x))
MINILLM_ONE(__log2f, log2f(x))
MINILLM_ONE(__log10f, log10f(x))
MINILLM_ONE(__sinf, sinf(x))
MINILLM_ONE(__cosf, cosf(x))
MINILLM_ONE(__tanf, tanf(x))
MINILLM_ONE(__tanhf, tanhf(x))
MINILLM_ONE(__saturatef, x < 1 ? (x > 0 ? x : 0) : x >= 1 ? 1 : 0)
MINILLM_ONE(rsqrtf, 1 / sqrtf(x))
MINILLM_ONE(__frsqrt_rn, 1 / sqrtf(x))
MINILLM_ONE(__frcp_rn, 1 / x)
MINILLM_ONE(__fsqrt_rn, sqrtf(x))
MINILLM_ONE(rcbrtf, 1 / cbrtf(x))
MINILLM_ONE(sinpif, sinf(float(M_PI) * x))
MINILLM_ONE(cospif, cosf(float(M_PI) * x))
MINILLM_ONE(normcdff, 0.5f * erfcf(-x * float(M_SQRT1_2)))
MINILLM_TWO(__fdividef, x / y)
MINILLM_TWO(fdividef, x / y)
MINILLM_TWO(__fdiv_rn, x / y)
MINILLM_TWO(__powf, powf(x, y))
MINILLM_TWO(__fadd_rn, x + y)
MINILLM_TWO(__fsub_rn, x - y)
MINILLM_TWO(__fmul_rn, x* y)
MINILLM_TWO(rhypotf, 1 / hypotf(x, y))
MINILLM_NUMBER(float, __fmaf_rn, (float x, float y, float z), fmaf(x, y, z))
MINILLM_NUMBER(float, norm3df, (float x, float y, float z), sqrtf(x* x + y * y + z * z))
MINILLM_NUMBER(void, __sincosf, (float x, float* s, float* c), (void)(*s = sinf(x), *c = cosf(x)))
MINILLM_NUMBER(double, rsqrt, (double x), 1 / sqrt(x))
MINILLM_NUMBER(double, normcdf, (double x), 0.5 * erfc(-x * M_SQRT1_2))
MINILLM_NUMBER(double, __dadd_rn, (double x, double y), x + y)
MINILLM_NUMBER(double, __dmul_rn, (double x, double y), x* y)
MINILLM_NUMBER(double, __fma_rn, (double x, double y, double z), fma(x, y, z))
MINILLM_NUMBER(float, rsqrt, (float x), 1 / sqrtf(x))

// Conversions that name their rounding: rn to nearest even, rz to zero, rd down, ru up.
#define MINILLM_ROUNDED(from, F, to, T)                                                               \
    MINILLM_NUMBER(T, __##from##2##to##_rn, (F x), static_cast<T>(nearbyint(static_cast<double>(x)))) \
    MINILLM_NUMBER(T, __##from##2##to##_rz, (F x), static_cast<T>(trunc(static_cast<double>(x))))     \
    MINILLM_NUMBER(T, __##from##2##to##_rd, (F x), static_cast<T>(floor(static_cast<double>(x))))     \
    MINILLM_NUMBER(T, __##from##2##to##_ru, (F x), static_cast<T>(ceil(static_cast<double>(x))))
MINILLM_ROUNDED(float, float, int, int)
MINILLM_ROUNDED(float, float, uint, unsigned)
MINILLM_ROUNDED(float, float, ll, long long)
MINILLM_ROUNDED(float, float, ull, unsigned long long)
MINILLM_ROUNDED(double, double, int, int)
MINILLM_ROUNDED(double, double, uint, unsigned)
MINILLM_ROUNDED(double, double, ll, long long)
#undef MINILLM_ROUNDED
MINILLM_NUMBER(float, __int2float_rn, (int x), float(x))
MINILLM_NUMBER(float, __uint2float_rn, (unsigned x), float(x))
MINILLM_NUMBER(float, __ll2float_rn, (long long x), float(x))
MINILLM_NUMBER(float, __ull2float_rn, (unsigned long long x), float(x))
MINILLM_NUMBER(double, __int2double_rn, (int x), double(x))
MINILLM_NUMBER(float, __double2float_rn, (double x), float(x))

namespace minillm_cuda {
template <class To, class From>
MINILLM_INLINE To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}
}  // namespace minillm_cuda
MINILLM_NUMBER(int, __float_as_int, (float x), minillm_cuda::bits_as<int>(x))
MINILLM_NUMBER(unsigned, __float_as_uint, (float x), minillm_cuda::bits_as<unsigned>(x))
MINILLM_NUMBER(float, __int_as_float, (int x), minillm_cuda::bits_as<float>(x))
MINILLM_NUMBER(float, __uint_as_float, (unsigned x), minillm_cuda::bits_as<float>(x))
MINILLM_NUMBER(long long, __double_as_longlong, (double x), minillm_cuda::bits_as<long long>(x))
MINILLM_NUMBER(double, __longlong_as_double, (long long x), minillm_cuda::bits_as<double>(x))
MINILLM_NUMBER(int, __double2hiint, (double x), int(minillm_cuda::bits_as<long long>(x) >> 32))
MINILLM_NUMBER(int, __double2loint, (double x), int(minillm_cuda::bits_as<long long>(x)))

MINILLM_NUMBER(int, __popc, (unsigned x), __builtin_popcount(x))
MINILLM_NUMBER(int, __popcll, (unsigned long long x), __builtin_popcountll(x))
MINILLM_NUMBER(int, __clz, (int x), x ? __builtin_clz(unsigned(x)) : 32)
MINILLM_NUMBER(int, __clzll, (long long x), x ? __builtin_clzll((unsigned long long)(x)) : 64)
MINILLM_NUMBER(int, __ffs, (int x), __builtin_ffs(x))
MINILLM_NUMBER(int, __ffsll, (long long x), __builtin_ffsll(x))
MINILLM_NUMBER(int, __mul24, (int x, int y), int(unsigned(x << 8 >> 8) * unsigned(y << 8 >> 8)))
MINILLM_NUMBER(unsigned, __umul24, (unsigned x, unsigned y), (x & 0xffffff) * (y & 0xffffff))
MINILLM_NUMBER(int, __mulhi, (int x, int y), int((long long)(x)*y >> 32))
MINILLM_NUMBER(unsigned, __umulhi, (unsigned x, unsigned y), unsigned((unsigned long long)(x)*y >> 32))
MINILLM_NUMBER(unsigned long long, __umul64hi, (unsigned long long x, unsigned long long y),
               (unsigned long long)((unsigned __int128)(x)*y >> 64))
MINILLM_NUMBER(long long, __mul64hi, (long long x, long long y), (long long)((__int128)(x)*y >> 64))
MINILLM_NUMBER(unsigned, __sad, (int x, int y, unsigned z), unsigned(x < y ? y - x : x - y) + z)
MINILLM_NUMBER(int, __hadd, (int x, int y), int(((long long)(x) + y) >> 1))
MINILLM_NUMBER(unsigned, __funnelshift_l, (unsigned low, unsigned high, unsigned n),
               unsigned(((uint64_t(high) << 32 | low) << (n & 31)) >> 32))
MINILLM_NUMBER(unsigned, __funnelshift_r, (unsigned low, unsigned high, unsigned n),
               unsigned((uint64_t(high) << 32 | low) >> (n & 31)))
MINILLM_INLINE unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
MINILLM_NUMBER(unsigned long long, __brevll, (unsigned long long x),
               (unsigned long long)(__brev(unsigned(x))) << 32 | __brev(unsigned(x >> 32)))
MINILLM_INLINE unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
MINILLM_INLINE int __dp4a(int x, int y, int sum) {
    for (int i = 0; i < 4; i++) sum += int((signed char)(x >> 8 * i)) * int((signed char)(y >> 8 * i));
    return sum;
}
#undef MINILLM_ONE
#undef MINILLM_TWO
#undef MINILLM_NUMBER

// Loads and stores that name a cache.
#define MINILLM_LOAD(name)              \
    template <class T>                  \
    MINILLM_INLINE T name(const T* p) { \
        return *p;                      \
    }
#define MINILLM_STORE(name)                                                \
    template <class T>                                                     \
    MINILLM_INLINE void name(T* p, typename std::common_type<T>::type x) { \
        *p = x;                                                            \
    }
MINILLM_LOAD(__ldg)
MINILLM_LOAD(__ldca)
MINILLM_LOAD(__ldcg)
MINILLM_LOAD(__ldcs)
MINILLM_LOAD(__ldlu)
MINILLM_LOAD(__ldcv)
MINILLM_STORE(__stwb)
MINILLM_STORE(__stcg)
MINILLM_STORE(__stcs)
MINILLM_STORE(__stwt)
#undef MINILLM_LOAD
#undef MINILLM_STORE
#ifndef __clang__
#define __builtin_assume(x) ((void)0)
#endif
#define __assume(x) ((void)0)
