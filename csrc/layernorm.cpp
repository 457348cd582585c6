// LayerNorm. Formulas and derivation: minillm/ops/layernorm.py.
//
//   out = (x - mean) * rstd * weight + bias
//   dx  = rstd * (g - mean(g) - xhat * mean(g * xhat)),   g = dout * weight,   xhat = (x - mean) * rstd
//
// Loop order: one row at a time; a row of C floats stays in the nearest cache over its two or three passes, so each array
// crosses memory once. Parallel over rows; dweight and dbias are summed over rows in CHUNKS fixed pieces.
#include "common.h"

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
void layernorm_forward_kernel(T* out, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T eps, int64_t N,
                              int64_t C) {
#pragma omp parallel for if (N * C > 16384)
    for (int64_t n = 0; n < N; n++) {
        const T* xn = x + n * C;
        T* on = out + n * C;
        T m = row_sum(xn, C) / C;
        T r = 1 / std::sqrt(row_variance_sum(xn, m, C) / C + eps);
        for (int64_t i = 0; i < C; i++) on[i] = (xn[i] - m) * r * weight[i] + bias[i];
        mean[n] = m;
        rstd[n] = r;
    }
}

// One row: writes dx and adds to the chunk's dweight and dbias.
template <class T>
void layernorm_backward_row(T* dx, T* dweight, T* dbias, const T* dout, const T* x, const T* weight, T mean, T rstd,
                            int64_t C) {
    Vec<T> vg{}, vgx{};                               // sums of g and of g * xhat
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
}

template <class T>
void layernorm_backward_kernel(T* dx, T* dweight, T* dbias, const T* dout, const T* x, const T* weight, const T* mean,
                               const T* rstd, int64_t N, int64_t C) {
    std::vector<T> partial(2 * CHUNKS * C, T(0));     // (CHUNKS, dweight | dbias, C)
#pragma omp parallel for schedule(static, 1) if (N * C > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        T* pw = partial.data() + 2 * chunk * C;
        Range rows = chunk_of(N, chunk);
        for (int64_t n = rows.begin; n < rows.end; n++)
            layernorm_backward_row(dx + n * C, pw, pw + C, dout + n * C, x + n * C, weight, mean[n], rstd[n], C);
    }
    for (int64_t i = 0; i < C; i++) dweight[i] = dbias[i] = 0;
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++)
        for (int64_t i = 0; i < C; i++) {
            dweight[i] += partial[2 * chunk * C + i];
            dbias[i] += partial[(2 * chunk + 1) * C + i];
        }
}

py::tuple layernorm_forward(py::array x, py::array weight, py::array bias, double eps) {
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.size() / C : 0;
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("weight", weight, {C}),
                *pb = input<T>("bias", bias, {C});
        auto out = fresh<T>(shape_of(x)), mean = fresh<T>({N}), rstd = fresh<T>({N});
        T *po = out.mutable_data(), *pm = mean.mutable_data(), *pr = rstd.mutable_data();
        {
            py::gil_scoped_release nogil;
            layernorm_forward_kernel<T>(po, pm, pr, px, pw, pb, T(eps), N, C);
        }
        return py::make_tuple(out, py::make_tuple(x, weight, mean, rstd));
    });
}

py::tuple layernorm_backward(py::array dout, py::tuple cache) {
    py::array x = cache[0], weight = cache[1], mean = cache[2], rstd = cache[3];
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t C = last("x", x), N = mean.size();
        const T* pd = input<T>("dout", dout, shape_of(x));
        auto *px = (const T*)x.data(), *pw = (const T*)weight.data(), *pm = (const T*)mean.data(),
             *pr = (const T*)rstd.data();
        auto dx = fresh<T>(shape_of(x)), dweight = fresh<T>({C}), dbias = fresh<T>({C});
        T *pdx = dx.mutable_data(), *pdw = dweight.mutable_data(), *pdb = dbias.mutable_data();
        {
            py::gil_scoped_release nogil;
            layernorm_backward_kernel<T>(pdx, pdw, pdb, pd, px, pw, pm, pr, N, C);
        }
        return py::make_tuple(dx, dweight, dbias);
    });
}

void bind_layernorm(py::module_& m) {
    m.def("layernorm_forward", &layernorm_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
          py::arg("eps") = 1e-5);
    m.def("layernorm_backward", &layernorm_backward, py::arg("dout"), py::arg("cache"));
}
