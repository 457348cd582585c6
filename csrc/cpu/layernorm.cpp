// LayerNorm over the last axis. Formulas and derivation: minillm/ops/layernorm.py.
//
//   out = (x - mean) * rstd * weight + bias
//   dx  = rstd * (g - mean(g) - xhat * mean(g * xhat)),   g = dout * weight,   xhat = (x - mean) * rstd
//
// Memory-bandwidth bound. Loop order: one row at a time; a row of C floats stays in L1 over its two or three passes, so
// each array crosses memory once. Parallel over rows; dweight and dbias are summed over rows in CHUNKS fixed pieces.
#include "cpu/layernorm.h"

#include <cmath>

#include "cpu/isa/threads.h"
#include "cpu/simd/vec.h"
#include "python/register.h"

namespace minillm::layernorm {

template <class T>
T row_sum(const T* x, int64_t C) {
    Vec<T> total{};
    int64_t i = 0;
    for (; i + WIDTH<T> <= C; i += WIDTH<T>) total += load(x + i);
    T tail = 0;
    for (; i < C; i++) tail += x[i];
    return sum<T>(total) + tail;
}

template <class T>
T row_variance_sum(const T* x, T mean, int64_t C) {
    Vec<T> total{};
    int64_t i = 0;
    for (; i + WIDTH<T> <= C; i += WIDTH<T>) {
        Vec<T> d = load(x + i) - mean;
        total += d * d;
    }
    T tail = 0;
    for (; i < C; i++) tail += (x[i] - mean) * (x[i] - mean);
    return sum<T>(total) + tail;
}

template <class T>
void forward_row(T* out, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T eps, int64_t C) {
    T m = row_sum(x, C) / C;
    T r = 1 / std::sqrt(row_variance_sum(x, m, C) / C + eps);
    for (int64_t i = 0; i < C; i++) out[i] = (x[i] - m) * r * weight[i] + bias[i];
    *mean = m;
    *rstd = r;
}

// With y, x + y goes to s and is normalised; without, s is not used.
template <class T>
void forward_kernel(T* out, T* mean, T* rstd, T* s, const T* x, const T* y, const T* weight, const T* bias, T eps,
                    int64_t N, int64_t C) {
#pragma omp parallel for if (N * C > 16384)
    for (int64_t n = 0; n < N; n++) {
        const T* xn = x + n * C;
        if (y) {
            for (int64_t i = 0; i < C; i++) s[n * C + i] = xn[i] + y[n * C + i];
            xn = s + n * C;
        }
        forward_row(out + n * C, mean + n, rstd + n, xn, weight, bias, eps, C);
    }
}

// One row: writes dx, plus dsum if there is one, and adds to the chunk's dweight and dbias.
template <class T>
void backward_row(T* dx, T* dweight, T* dbias, const T* dsum, const T* dout, const T* x, const T* weight, T mean,
                  T rstd, int64_t C) {
    Vec<T> vg{}, vgx{};  // sums of g and of g * xhat
    T g_sum = 0, gx_sum = 0;
    int64_t i = 0;
    for (; i + WIDTH<T> <= C; i += WIDTH<T>) {
        Vec<T> d = load(dout + i), xhat = (load(x + i) - mean) * rstd, g = d * load(weight + i);
        vg += g;
        vgx += g * xhat;
        store(dweight + i, load(dweight + i) + d * xhat);
        store(dbias + i, load(dbias + i) + d);
    }
    for (; i < C; i++) {
        T xhat = (x[i] - mean) * rstd, g = dout[i] * weight[i];
        g_sum += g;
        gx_sum += g * xhat;
        dweight[i] += dout[i] * xhat;
        dbias[i] += dout[i];
    }
    T g_mean = (sum<T>(vg) + g_sum) / C, gx_mean = (sum<T>(vgx) + gx_sum) / C;
    for (int64_t j = 0; j < C; j++) {
        T xhat = (x[j] - mean) * rstd;
        dx[j] = (dout[j] * weight[j] - g_mean - xhat * gx_mean) * rstd;
    }
    for (int64_t j = 0; dsum && j < C; j++) dx[j] += dsum[j];  // the row is still in L1
}

// dsum may be null. add: dweight and dbias are added to; either may be null (their sums over a chunk cost little).
template <class T>
void backward_kernel(T* dx, T* dweight, T* dbias, bool add, const T* dsum, const T* dout, const T* x, const T* weight,
                     const T* mean, const T* rstd, int64_t N, int64_t C) {
    std::vector<T> partial(2 * CHUNKS * C, T(0));  // (CHUNKS, dweight | dbias, C)
#pragma omp parallel for schedule(static, 1) if (N * C > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        T* pw = partial.data() + 2 * chunk * C;
        Range rows = chunk_of(N, chunk);
        for (int64_t n = rows.begin; n < rows.end; n++)
            backward_row(dx + n * C, pw, pw + C, dsum ? dsum + n * C : nullptr, dout + n * C, x + n * C, weight,
                         mean[n], rstd[n], C);
    }
    for (T* sums : {dweight, dbias}) {
        if (sums && !add) std::fill_n(sums, C, T(0));
        for (int64_t chunk = 0; sums && chunk < CHUNKS; chunk++)
            for (int64_t i = 0; i < C; i++) sums[i] += partial[(2 * chunk + (sums == dbias)) * C + i];
    }
}

template void forward_row(float*, float*, float*, const float*, const float*, const float*, float, int64_t);

Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1), mean = cached(cache, 2), rstd = cached(cache, 3);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.rows() : 0;
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {C}),
                *pm = input<T>("cached mean", mean, {N}), *pr = input<T>("cached rstd", rstd, {N}),
                *pd = input<T>("dout", dout, x.shape);
        const T* pds = dsum.is_none() ? nullptr : input<T>("dsum", argument<Array>(dsum, "dsum"), x.shape);
        auto dx = fresh<T>(x.shape);
        auto d = gradients<T>(into, {{C}, {C}});  // dweight, dbias
        without_gil([&] { backward_kernel<T>(dx, d[0], d[1], !into.is_none(), pds, pd, px, pw, pm, pr, N, C); });
        return tuple_of({dx, d[0], d[1]});
    });
}

Tuple forward(const Array& x, const Object& y, const Array& weight, const Array& bias, double eps) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.rows() : 0;
        const T *px = input<T>("x", x, x.shape),
                *py = y.is_none() ? nullptr : input<T>("y", argument<Array>(y, "y"), x.shape),
                *pw = input<T>("weight", weight, {C}), *pb = input<T>("bias", bias, {C});
        if (!(eps > 0 && eps < INFINITY)) fail("eps must be a number above 0: got ", eps);
        auto out = fresh<T>(x.shape), mean = fresh<T>({N}), rstd = fresh<T>({N});
        auto s = py ? fresh<T>(x.shape) : Result<T>(x, nullptr);
        without_gil([&] { forward_kernel<T>(out, mean, rstd, s, px, py, pw, pb, T(eps), N, C); });
        return tuple_of({s, out, tuple_of({s, weight, mean, rstd})});
    });
}

Tuple layernorm_forward(const Array& x, const Array& weight, const Array& bias, double eps) {
    Tuple made = forward(x, Object(), weight, bias, eps);
    return tuple_of({made[1], made[2]});
}

Tuple layernorm_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return backward(Object(), dout, cache, into);
}

const Register registered[] = {{"layernorm_forward(x, weight, bias, eps=1e-5)", &layernorm_forward},
                               {"layernorm_backward(dout, cache, into=None)", &layernorm_backward}};

}  // namespace minillm::layernorm
