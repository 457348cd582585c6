// exp, tanh and GELU on whole vectors, without branches, from arithmetic that every instruction set has.
//
// exp(x): write x = n ln2 + r with n whole and |r| <= ln2 / 2, then exp(x) = 2^n exp(r). ln2 is split in two, the first
// part with so few bits that n * LN2_HIGH is exact (Cody & Waite 1980); exp(r) = 1 + r + r^2 Q(r), where Q minimises
// the largest relative error (Lawson's and Remez's algorithms at 40 digits: 3.1e-9 for the 5 coefficients of float,
// 3.6e-18 for the 10 of double, far under half a unit in the last place); 2^n is made by writing n into the exponent.
// Error: at most 1.1 units in the last place. NaN stays NaN, exp(inf) = inf, and results that would be under twice the
// smallest normal number are 0 (x < -86.98 in float, x < -708.04 in double), so no denormal number appears.
//
// Every lane is computed by itself, and tails go through the same code in padded vectors (load_part): the bits of a
// result depend on its input only, not on its place in the array.
#pragma once

#include "cpu/simd/vec.h"

namespace minillm {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f, LOWEST = -87.5f, HIGHEST = 89.0f,
                           ROUND = 12582912.0f;  // 1.5 * 2^23
    static constexpr int MANTISSA = 23, BIAS = 126;  // one under the bias: gives 2^(n-1)
    static constexpr float Q[] = {0.001381453772f, 0.008368744373f, 0.04166839084f, 0.1666652041f, 0.4999999343f};
};

template <>
struct ExpConstants<double> {
    static constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10,
                            LOWEST = -708.5, HIGHEST = 710.0, ROUND = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr int MANTISSA = 52, BIAS = 1022;
    static constexpr double Q[] = {2.50000183764045301e-08, 2.76303063446217122e-07, 2.75575868059040759e-06,
                                   2.48014929493618107e-05, 1.98412695057705644e-04, 1.38888889437602326e-03,
                                   8.33333333349497945e-03, 4.16666666665297272e-02, 1.66666666666664115e-01,
                                   5.00000000000001067e-01};
};

// Lane by lane maximum and minimum; where b is NaN the result is NaN.
template <class T>
inline Vec<T> vmax(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}

template <class T>
inline Vec<T> vmin(Vec<T> a, Vec<T> b) {
    return a < b ? a : b;
}

// For x in [LOWEST, HIGHEST]: r + r^2 Q(r), which is exp(r) - 1; and half_scale = 2^(n-1), since 2^n would not fit for the
// largest x: for the smallest, its bits come out as 0.
template <class T>
inline Vec<T> exp_parts(Vec<T> x, Vec<T>& half_scale) {
    typedef ExpConstants<T> K;
    typedef typename LaneInt<T>::type Int;
    Vec<T> rounded = x * T(1.44269504088896341) + K::ROUND;  // ROUND leaves the whole number n in the low bits
    Vec<T> n = rounded - K::ROUND, r = x - n * K::LN2_HIGH - n * K::LN2_LOW;
    Vec<T> q = splat<T>(K::Q[0]);
    for (size_t i = 1; i < sizeof K::Q / sizeof(T); i++) q = q * r + K::Q[i];
    half_scale = (Vec<T>)(((Vec<Int>)rounded << K::MANTISSA) + (Int(K::BIAS) << K::MANTISSA));
    return q * r * r + r;
}

template <class T>
inline Vec<T> vexp_within(Vec<T> x) {
    Vec<T> half_scale, e = exp_parts<T>(x, half_scale) + 1;
    return (e + e) * half_scale;
}

template <class T>
inline Vec<T> exp_clamped(Vec<T> x) {
    return vmin<T>(splat<T>(ExpConstants<T>::HIGHEST), vmax<T>(splat<T>(ExpConstants<T>::LOWEST), x));
}

template <class T>
inline Vec<T> vexp(Vec<T> x) {
    return vexp_within<T>(exp_clamped<T>(x));
}

// 2^x for x <= 0, where 8 bits of the result are kept: a polynomial that errs by 2.8e-6 of it at most (Lawson's algorithm), with
// 2^0 = 1. What is below -126 counts as -126. NaN stays NaN.
inline Vec<float> vexp2_roughly(Vec<float> x) {
    constexpr float Q[] = {0.009582853f, 0.055906426f, 0.24024099f, 0.6931242f}, ROUND = ExpConstants<float>::ROUND;
    x = vmax<float>(splat<float>(-126), x);
    Vec<float> rounded = x + ROUND, r = x - (rounded - ROUND);  // ROUND leaves the whole number in the low bits
    Vec<float> p = (((Q[0] * r + Q[1]) * r + Q[2]) * r + Q[3]) * r + 1;
    return (Vec<float>)((Vec<int32_t>)p + ((Vec<int32_t>)rounded << 23));
}

// tanh(x) = -m / (2 + m) for x >= 0, with m = exp(-2x) - 1 = 2^n (exp(r) - 1) + (2^n - 1): near 0, where exp would be rounded to
// 1 and its difference lost, n = 0 and m is the polynomial alone.
template <class T>
inline Vec<T> vtanh(Vec<T> x) {
    Vec<T> half_scale, p = exp_parts<T>(exp_clamped<T>(-2 * vmax<T>(-x, x)), half_scale),
                       scale = half_scale + half_scale;
    Vec<T> m = p * scale + (scale - 1), t = -m / (2 + m);
    return x < 0 ? -t : t;
}

// tanh form of GELU (minillm/ops/gelu.py). Since (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), one exp and one division do;
// nothing cancels for negative x, as 1 + tanh(u) would.
constexpr double GELU_K = 0.79788456080286535588, GELU_A = 0.044715;  // sqrt(2 / pi)

template <class T>
inline Vec<T> vgelu(Vec<T> x) {
    Vec<T> u = x * (T(GELU_K * GELU_A) * x * x + T(GELU_K));
    return x / (vexp<T>(-2 * u) + 1);
}

// d gelu / dx = s + 2 x s (1 - s) * du/dx, where s = 1 / (1 + exp(-2u)) and s (1 - s) = e / (1 + e)^2 with
// e = exp(-|2u|): again nothing cancels. Beyond +-30 e is 0, and the slope exactly 0 or 1.
template <class T>
inline Vec<T> vgelu_slope(Vec<T> x) {
    x = vmin<T>(splat<T>(30), vmax<T>(splat<T>(-30), x));
    Vec<T> u2 = x * (T(2 * GELU_K * GELU_A) * x * x + T(2 * GELU_K));
    Vec<T> e = vexp<T>(vmin<T>(u2, -u2)), r = 1 / (1 + e);
    Vec<T> s = x < 0 ? e * r : r;
    return s + x * e * r * r * (T(6 * GELU_K * GELU_A) * x * x + T(2 * GELU_K));
}

// Both from one exponential: returns gelu(x) = x s, and sets the slope.
template <class T>
inline Vec<T> vgelu_and_slope(Vec<T> whole, Vec<T>& slope) {
    Vec<T> x = vmin<T>(splat<T>(30), vmax<T>(splat<T>(-30), whole));
    Vec<T> u2 = x * (T(2 * GELU_K * GELU_A) * x * x + T(2 * GELU_K)), e = vexp<T>(vmin<T>(u2, -u2));
    Vec<T> r = 1 / (1 + e), s = x < 0 ? e * r : r;
    slope = s + x * e * r * r * (T(6 * GELU_K * GELU_A) * x * x + T(2 * GELU_K));
    return whole * s;
}

// A polynomial of the coefficients C, that of the highest power first, as a sum of its even and its odd powers: two chains
// of half the length, which a processor works on at the same time.
template <class T, size_t N>
inline Vec<T> polynomial(const T (&C)[N], Vec<T> x) {
    Vec<T> square = x * x, sums[2] = {splat<T>(C[0]), splat<T>(C[1])};
    for (size_t i = 2; i < N; i++) sums[i % 2] = sums[i % 2] * square + C[i];
    return sums[N % 2] * x + sums[(N - 1) % 2];
}

// The normal CDF, Phi, for the exact GELU (minillm/ops/gelu_exact.py). For a = |x|
//
//   Phi(-a) = exp(-a^2 / 2) R(a)          R(a) = exp(a^2 / 2) erfc(a / sqrt(2)) / 2,  (a + K) R(a) = P(t),  t = (a - K) / (a + K)
//
// where R falls smoothly from 1/2 like 1 / a, so that P, on [-1, 1), is nearly flat: Chebyshev interpolation at 50 digits
// leaves 1.3e-8 of relative error with the 10 coefficients of float and 3.5e-17 with the 23 of double. The tail keeps
// its digits, and for x > 0 Phi = 1 - Phi(-x) cancels nothing. At LIMIT the exponential is 0.
// Source of the mapping: Shepherd & Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x".
template <class T>
struct CdfConstants;

template <>
struct CdfConstants<float> {
    static constexpr float K = 4, LIMIT = 13.2f;
    static constexpr float P[] = {-0.000120184401f, 0.00020126173f, 0.00157231788f, -0.0035261837f, -0.0075292507f,
                                  0.0604066887f,    -0.186522685f,  0.387136684f,   -0.607896618f,  0.755285138f};
};

template <>
struct CdfConstants<double> {
    static constexpr double K = 4, LIMIT = 37.64;
    static constexpr double P[] = {
        -9.2961055241140090392e-10, 1.6226856522335149888e-10,  1.3873375557245197271e-8,  1.429837597027241649e-8,
        -7.6429668445512043741e-8,  -1.5389191979555253352e-7,  2.6384422193908153059e-7,  1.0195334851488973183e-6,
        -6.2528963381510765268e-7,  -5.9187733094512160405e-6,  7.1508701587247066788e-7,  0.000035144148726728535753,
        -1.9078912934884322552e-6,  -0.00023109481296147702326, 0.00013334425849033725258, 0.0016308184413790380823,
        -0.0034796923626996940242,  -0.0075401889655676716952,  0.060396574890722982777,   -0.1865218579596946971,
        0.38713740074221841251,     -0.60789664197189175594,    0.75528513041575148141};
};

// Phi(x); `bell` becomes exp(-x^2 / 2), which the slope needs, too.
template <class T>
inline Vec<T> vnormal_cdf(Vec<T> x, Vec<T>& bell) {
    typedef CdfConstants<T> K;
    Vec<T> a = vmin<T>(splat<T>(K::LIMIT), vmax<T>(x, -x)), r = 1 / (a + K::K), t = 1 - 2 * K::K * r;
    bell = vexp_within<T>(T(-0.5) * a * a);
    Vec<T> tail = bell * (r * polynomial<T>(K::P, t));
    return x < 0 ? tail : 1 - tail;
}

// The same in float without a division, for the forward pass, where the density is not needed by itself: one exponential
// has both factors, Phi(-a) = 2^y with y = log2(R(a)) - log2(e) a^2 / 2. The first part is a polynomial on [0, 5]; beyond,
// where Phi is under 3e-7, it stays what it is at 5. 2^y is 2^n times a polynomial of what rounding to n leaves; at
// LIMIT n is -127, whose exponent means 0. Then x Phi(x) = max(x, 0) - a Phi(-a).
inline Vec<float> vgelu_exact_float(Vec<float> x) {
    constexpr float LOG_R[] = {-2.4422998e-8f, 1.1556652e-7f,   1.2854831e-7f, -3.4087414e-6f,
                               3.0833771e-5f,  -0.00024008761f, 0.0016376146f, -0.010311342f,
                               0.064180995f,   -0.46562194f,    -2.8228468f};
    constexpr float EXP2[] = {0.00015461445f, 0.0013400428f, 0.0096180567f, 0.055503272f, 0.24022651f, 0.69314721f, 1};
    constexpr float LIMIT = 13.07f, ROUND = 12582912 + 127;  // rounding leaves n + 127 in the low bits: the exponent
    Vec<float> a = vmin<float>(splat<float>(LIMIT), vmax<float>(x, -x)), t = vmin<float>(splat<float>(5), a) - 2.5f;
    Vec<float> y = polynomial<float>(LOG_R, t) - 0.72134752f * a * a, rounded = y + ROUND;
    Vec<float> tail = polynomial<float>(EXP2, y - (rounded - ROUND)) * (Vec<float>)((Vec<int32_t>)rounded << 23);
    return vmax<float>(x, splat<float>(0)) - a * tail;
}

template <class T>
inline Vec<T> vgelu_exact(Vec<T> x) {
    if constexpr (std::is_same_v<T, float>) return vgelu_exact_float(x);
    Vec<T> bell;
    return x * vnormal_cdf<T>(x, bell);
}

// d gelu / dx = Phi(x) + x bell / sqrt(2 pi); beyond LIMIT exactly 0 or 1.
template <class T>
inline Vec<T> vgelu_exact_slope(Vec<T> x) {
    Vec<T> bell, cdf = vnormal_cdf<T>(x, bell), limit = splat<T>(CdfConstants<T>::LIMIT);
    return cdf + vmin<T>(limit, vmax<T>(-limit, x)) * bell * T(0.39894228040143267794);
}

template <class T>
inline Vec<T> vsilu(Vec<T> x) {
    return x / (vexp<T>(-x) + 1);
}

// silu(x) = x s, and its slope s + x s (1 - s), where s = 1 / (1 + exp(-x)); s (1 - s) = e / (1 + e)^2 with e = exp(-|x|), as
// above. The x of the slope is bounded, so that an infinite one gives 0 times a number.
template <class T>
inline Vec<T> vsilu_and_slope(Vec<T> x, Vec<T>& slope) {
    Vec<T> e = vexp<T>(vmin<T>(x, -x)), r = 1 / (1 + e), s = x < 0 ? e * r : r;
    Vec<T> bounded = vmin<T>(splat<T>(-ExpConstants<T>::LOWEST), vmax<T>(splat<T>(ExpConstants<T>::LOWEST), x));
    slope = s + bounded * e * r * r;
    return x * s;
}

}  // namespace minillm
