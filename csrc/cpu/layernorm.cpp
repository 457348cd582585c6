// LayerNorm, alone and with the addition to the stream before it. Formulas and derivations: minillm/ops/layernorm.py and
// residual_layernorm.py.
//
//   out = (x - mean) * rstd * weight + bias                              x, or s = x + y, which is an output, too
//   dx  = rstd * (g - mean(g) - xhat * mean(g * xhat)),   g = dout * weight,   xhat = (x - mean) * rstd
//   ds  = dsum + dx
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
void layernorm_row(T* out, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T eps, int64_t C) {
    T m = row_sum(x, C) / C;
    T r = 1 / std::sqrt(row_variance_sum(x, m, C) / C + eps);
    for (int64_t i = 0; i < C; i++) out[i] = (x[i] - m) * r * weight[i] + bias[i];
    *mean = m;
    *rstd = r;
}

// With y, x + y goes to s and is normalised; without, s is not used.
template <class T>
void layernorm_forward_kernel(T* out, T* mean, T* rstd, T* s, const T* x, const T* y, const T* weight, const T* bias,
                              T eps, int64_t N, int64_t C) {
#pragma omp parallel for if (N * C > 16384)
    for (int64_t n = 0; n < N; n++) {
        const T* xn = x + n * C;
        if (y) {
            for (int64_t i = 0; i < C; i++) s[n * C + i] = xn[i] + y[n * C + i];
            xn = s + n * C;
        }
        layernorm_row(out + n * C, mean + n, rstd + n, xn, weight, bias, eps, C);
    }
}

// One row: writes dx, plus dsum if there is one, and adds to the chunk's dweight and dbias.
template <class T>
void layernorm_backward_row(T* dx, T* dweight, T* dbias, const T* dsum, const T* dout, const T* x, const T* weight, T mean,
                            T rstd, int64_t C) {
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
    for (int64_t j = 0; dsum && j < C; j++) dx[j] += dsum[j];        // the row is still in the nearest cache
}

// dsum may be null. add: dweight and dbias are added to; either may be null (their sums over a chunk cost little).
template <class T>
void layernorm_backward_kernel(T* dx, T* dweight, T* dbias, bool add, const T* dsum, const T* dout, const T* x,
                               const T* weight, const T* mean, const T* rstd, int64_t N, int64_t C) {
    std::vector<T> partial(2 * CHUNKS * C, T(0));     // (CHUNKS, dweight | dbias, C)
#pragma omp parallel for schedule(static, 1) if (N * C > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        T* pw = partial.data() + 2 * chunk * C;
        Range rows = chunk_of(N, chunk);
        for (int64_t n = rows.begin; n < rows.end; n++)
            layernorm_backward_row(dx + n * C, pw, pw + C, dsum ? dsum + n * C : nullptr, dout + n * C, x + n * C, weight,
                                   mean[n], rstd[n], C);
    }
    for (T* sums : {dweight, dbias}) {
        if (sums && !add) std::fill_n(sums, C, T(0));
        for (int64_t chunk = 0; sums && chunk < CHUNKS; chunk++)
            for (int64_t i = 0; i < C; i++) sums[i] += partial[(2 * chunk + (sums == dbias)) * C + i];
    }
}

py::tuple layernorm_forward(py::array x, py::array weight, py::array bias, double eps) {
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.size() / C : 0;
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("weight", weight, {C}),
                *pb = input<T>("bias", bias, {C});
        if (!(eps > 0)) fail("eps must be above 0: got " + std::to_string(eps));
        auto out = fresh<T>(shape_of(x)), mean = fresh<T>({N}), rstd = fresh<T>({N});
        T *po = out.mutable_data(), *pm = mean.mutable_data(), *pr = rstd.mutable_data();
        {
            py::gil_scoped_release nogil;
            layernorm_forward_kernel<T>(po, pm, pr, nullptr, px, nullptr, pw, pb, T(eps), N, C);
        }
        return py::make_tuple(out, py::make_tuple(x, weight, mean, rstd));
    });
}

py::tuple residual_layernorm_forward(py::array x, py::array y, py::array weight, py::array bias, double eps) {
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.size() / C : 0;
        const T *px = input<T>("x", x, shape_of(x)), *py_ = input<T>("y", y, shape_of(x)),
                *pw = input<T>("weight", weight, {C}), *pb = input<T>("bias", bias, {C});
        if (!(eps > 0)) fail("eps must be above 0: got " + std::to_string(eps));
        auto s = fresh<T>(shape_of(x)), out = fresh<T>(shape_of(x)), mean = fresh<T>({N}), rstd = fresh<T>({N});
        T *ps = s.mutable_data(), *po = out.mutable_data(), *pm = mean.mutable_data(), *pr = rstd.mutable_data();
        {
            py::gil_scoped_release nogil;
            layernorm_forward_kernel<T>(po, pm, pr, ps, px, py_, pw, pb, T(eps), N, C);
        }
        return py::make_tuple(py::make_tuple(s, out), py::make_tuple(s, weight, mean, rstd));
    });
}

// (dx, dweight, dbias), with dsum, an array or None, added to dx.
py::tuple layernorm_gradients(py::object dsum, py::array dout, py::tuple cache, py::object into) {
    py::array x = cached(cache, 0), weight = cached(cache, 1), mean = cached(cache, 2), rstd = cached(cache, 3);
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t C = last("x", x), N = C ? x.size() / C : 0;
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("weight", weight, {C}),
                *pm = input<T>("cached mean", mean, {N}), *pr = input<T>("cached rstd", rstd, {N});
        const T* pd = input<T>("dout", dout, shape_of(x));
        const T* pds = dsum.is_none() ? nullptr : input<T>("dsum", dsum.cast<py::array>(), shape_of(x));
        auto dx = fresh<T>(shape_of(x));
        auto d = added_to_all<T>(into, {{C}, {C}});                                // dweight, dbias
        T *pdx = dx.mutable_data(), *pdw = d[0].data, *pdb = d[1].data;
        bool add = !into.is_none();
        {
            py::gil_scoped_release nogil;
            layernorm_backward_kernel<T>(pdx, pdw, pdb, add, pds, pd, px, pw, pm, pr, N, C);
        }
        return py::make_tuple(dx, d[0].array, d[1].array);
    });
}

py::tuple layernorm_backward(py::array dout, py::tuple cache, py::object into) {
    return layernorm_gradients(py::none(), dout, cache, into);
}

py::tuple residual_layernorm_backward(py::tuple douts, py::tuple cache, py::object into) {
    if (py::len(douts) != 2) fail("douts must be (dsum, dout)");
    auto d = layernorm_gradients(douts[0], douts[1], cache, into);
    return py::make_tuple(d[0], d[0], d[1], d[2]);
}

void bind_layernorm(py::module_& m) {
    m.def("layernorm_forward", &layernorm_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
          py::arg("eps") = 1e-5);
    m.def("layernorm_backward", &layernorm_backward, py::arg("dout"), py::arg("cache"), py::arg("into") = py::none());
    m.def("residual_layernorm_forward", &residual_layernorm_forward, py::arg("x"), py::arg("y"), py::arg("weight"),
          py::arg("bias"), py::arg("eps") = 1e-5);
    m.def("residual_layernorm_backward", &residual_layernorm_backward, py::arg("douts"), py::arg("cache"),
          py::arg("into") = py::none());
}
