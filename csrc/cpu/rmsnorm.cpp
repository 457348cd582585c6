// RMSNorm over the last axis. Formulas and derivation: minillm/ops/rmsnorm.py.
//
//   out = x * rstd * weight
//   dx  = rstd * (g - xhat * mean(g * xhat)),   g = dout * weight,   xhat = x * rstd
//
// Memory-bandwidth bound. Loop order: one row at a time; a row of C floats stays in L1 over its two passes, so each array
// crosses memory once. Parallel over rows; dweight is summed over rows in CHUNKS fixed pieces.
#include "cpu/rmsnorm.h"

#include "cpu/isa/threads.h"
#include "python/register.h"

namespace minillm::rmsnorm {

// With y, x + y goes to s and is normalised; without, s is not used.
template <class T>
void forward_kernel(T* out, T* rstd, T* s, const T* x, const T* y, const T* weight, T eps, int64_t N, int64_t C) {
#pragma omp parallel for if (N * C > 16384)
    for (int64_t n = 0; n < N; n++) {
        const T* xn = x + n * C;
        if (y) {
            for (int64_t i = 0; i < C; i++) s[n * C + i] = xn[i] + y[n * C + i];
            xn = s + n * C;
        }
        rstd[n] = forward_row(out + n * C, xn, weight, eps, C);
    }
}

// One row: writes dx, plus dsum if there is one, and adds to the chunk's dweight.
template <class T>
void backward_row(T* dx, T* dweight, const T* dsum, const T* dout, const T* x, const T* weight, T rstd, int64_t C) {
    Vec<T> total{};  // sum of g * xhat
    T tail = 0;
    int64_t i = 0;
    for (; i + WIDTH<T> <= C; i += WIDTH<T>) {
        Vec<T> d = load(dout + i), xhat = load(x + i) * rstd;
        total += d * load(weight + i) * xhat;
        store(dweight + i, load(dweight + i) + d * xhat);
    }
    for (; i < C; i++) {
        T xhat = x[i] * rstd;
        tail += dout[i] * weight[i] * xhat;
        dweight[i] += dout[i] * xhat;
    }
    T mean = (sum<T>(total) + tail) / C;
    for (int64_t j = 0; j < C; j++) dx[j] = (dout[j] * weight[j] - x[j] * rstd * mean) * rstd;
    for (int64_t j = 0; dsum && j < C; j++) dx[j] += dsum[j];  // the row is still in L1
}

// dsum may be null. add: dweight is added to; it may be null (its sum over a chunk costs little).
template <class T>
void backward_kernel(T* dx, T* dweight, bool add, const T* dsum, const T* dout, const T* x, const T* weight,
                     const T* rstd, int64_t N, int64_t C) {
    std::vector<T> partial(CHUNKS * C, T(0));
#pragma omp parallel for schedule(static, 1) if (N * C > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        Range rows = chunk_of(N, chunk);
        for (int64_t n = rows.begin; n < rows.end; n++)
            backward_row(dx + n * C, partial.data() + chunk * C, dsum ? dsum + n * C : nullptr, dout + n * C, x + n * C,
                         weight, rstd[n], C);
    }
    if (dweight && !add) std::fill_n(dweight, C, T(0));
    for (int64_t chunk = 0; dweight && chunk < CHUNKS; chunk++)
        for (int64_t i = 0; i < C; i++) dweight[i] += partial[chunk * C + i];
}

Tuple backward(const Object& dsum, const Array& dout, const Tuple& cache, const Object& into) {
    Array x = cached(cache, 0), weight = cached(cache, 1), rstd = cached(cache, 2);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.rows() : 0;
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("weight", weight, {C}),
                *pr = input<T>("cached rstd", rstd, {N}), *pd = input<T>("dout", dout, x.shape);
        const T* pds = dsum.is_none() ? nullptr : input<T>("dsum", argument<Array>(dsum, "dsum"), x.shape);
        auto dx = fresh<T>(x.shape);
        auto d = gradients<T>(into, {{C}});  // dweight
        without_gil([&] { backward_kernel<T>(dx, d[0], !into.is_none(), pds, pd, px, pw, pr, N, C); });
        return tuple_of({dx, d[0]});
    });
}

Tuple forward(const Array& x, const Object& y, const Array& weight, double eps) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.rows() : 0;
        const T *px = input<T>("x", x, x.shape),
                *py = y.is_none() ? nullptr : input<T>("y", argument<Array>(y, "y"), x.shape),
                *pw = input<T>("weight", weight, {C});
        if (!(eps > 0 && eps < INFINITY)) fail("eps must be a number above 0: got ", eps);
        auto out = fresh<T>(x.shape), rstd = fresh<T>({N});
        auto s = py ? fresh<T>(x.shape) : Result<T>(x, nullptr);
        without_gil([&] { forward_kernel<T>(out, rstd, s, px, py, pw, T(eps), N, C); });
        return tuple_of({s, out, tuple_of({s, weight, rstd})});
    });
}

Tuple rmsnorm_forward(const Array& x, const Array& weight, double eps) {
    Tuple made = forward(x, Object(), weight, eps);
    return tuple_of({made[1], made[2]});
}

Tuple rmsnorm_backward(const Array& dout, const Tuple& cache, const Object& into) {
    return backward(Object(), dout, cache, into);
}

const Register registered[] = {{"rmsnorm_forward(x, weight, eps=1e-6)", &rmsnorm_forward},
                               {"rmsnorm_backward(dout, cache, into=None)", &rmsnorm_backward}};

}  // namespace minillm::rmsnorm
