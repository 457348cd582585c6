// Softmax and cross-entropy, row by row. Formulas: minillm/ops/cross_entropy.py.
//
//   top = max(z),  logsum = log(sum of exp(z - top)),  loss = logsum + (top - z[y])
//   dz  = dout * (exp(z - top - logsum) - 1[v = y])
//
// A row of V logits (200 KB in float32 at V = 50,257) is read from memory once: the pass for the maximum leaves it in
// the core's cache for the pass of exponentials. The sum is taken in pieces of SUM_BLOCK, to keep its rounding small.
// Backward is one pass. Parallel over rows.
#include "common.h"
#include "ids.h"
#include "vecmath.h"

template <class T>
T row_max(const T* z, int64_t V) {
    Vec<T> top = splat<T>(-INFINITY), top2 = top;                    // two, so that one need not wait for the other
    int64_t i = 0;
    for (; i + 2 * WIDTH<T> <= V; i += 2 * WIDTH<T>) {
        top = vmax<T>(load(z + i), top);
        top2 = vmax<T>(load(z + i + WIDTH<T>), top2);
    }
    for (; i < V; i += WIDTH<T>) top = vmax<T>(load_part(z + i, std::min(WIDTH<T>, V - i), T(-INFINITY)), top);
    top = vmax<T>(top, top2);
    T best = top[0];
    for (int64_t lane = 1; lane < WIDTH<T>; lane++) best = std::max(best, top[lane]);
    return best;
}

// Sum of exp((z - top) * scale).
template <class T>
T row_exp_sum(const T* z, T top, int64_t V, T scale = 1) {
    constexpr int64_t SUM_BLOCK = 1024;
    T total = 0;
    for (int64_t begin = 0; begin < V; begin += SUM_BLOCK) {
        int64_t i = begin, end = std::min(V, begin + SUM_BLOCK);
        Vec<T> piece{};
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) piece += vexp<T>((load(z + i) - top) * scale);
        if (i < end) piece += vexp<T>((load_part(z + i, end - i, T(-INFINITY)) - top) * scale);
        total += sum<T>(piece);
    }
    return total;
}

template <class T>
void cross_entropy_forward_kernel(T* losses, T* top, T* logsum, const T* logits, const int64_t* targets,
                                  int64_t ignore_index, int64_t N, int64_t V) {
#pragma omp parallel for if (N * V > 4096)
    for (int64_t n = 0; n < N; n++) {
        const T* z = logits + n * V;
        top[n] = row_max(z, V);
        logsum[n] = std::log(row_exp_sum(z, top[n], V));
        losses[n] = targets[n] == ignore_index ? T(0) : logsum[n] + (top[n] - z[targets[n]]);
    }
}

// dz may be z itself.
template <class T>
void cross_entropy_backward_row(T* dz, const T* z, int64_t target, T top, T logsum, T dout, int64_t V) {
    T right = vexp<T>(splat<T>(z[target] - top - logsum))[0];
    int64_t i = 0;
    for (; i + WIDTH<T> <= V; i += WIDTH<T>) store(dz + i, vexp<T>(load(z + i) - top - logsum) * dout);
    if (i < V) store_part(dz + i, vexp<T>(load_part(z + i, V - i) - top - logsum) * dout, V - i);
    dz[target] = (right - 1) * dout;
}

template <class T>
void cross_entropy_backward_kernel(T* dlogits, const T* dout, const T* logits, const int64_t* targets, const T* top,
                                   const T* logsum, int64_t ignore_index, int64_t N, int64_t V) {
#pragma omp parallel for if (N * V > 4096)
    for (int64_t n = 0; n < N; n++) {
        if (targets[n] == ignore_index)
            std::fill_n(dlogits + n * V, V, T(0));
        else
            cross_entropy_backward_row(dlogits + n * V, logits + n * V, targets[n], top[n], logsum[n], dout[n], V);
    }
}

py::tuple cross_entropy_forward(py::array logits, py::array targets, int64_t ignore_index) {
    return by_dtype("logits", logits, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const T* pz = input<T>("logits", logits, {ANY, ANY});
        int64_t N = logits.shape(0), V = logits.shape(1);
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        auto losses = fresh<T>({N}), top = fresh<T>({N}), logsum = fresh<T>({N});
        T *pl = losses.mutable_data(), *pm = top.mutable_data(), *ps = logsum.mutable_data();
        const int64_t* pt = checked.data();
        {
            py::gil_scoped_release nogil;
            cross_entropy_forward_kernel<T>(pl, pm, ps, pz, pt, ignore_index, N, V);
        }
        return py::make_tuple(losses, py::make_tuple(logits, checked, top, logsum, ignore_index));
    });
}

py::array cross_entropy_backward(py::array dout, py::tuple cache) {
    py::array logits = cached(cache, 0), targets = cached(cache, 1), top = cached(cache, 2), logsum = cached(cache, 3);
    check_shape("logits", logits, {ANY, ANY});
    auto ignore_index = cache[4].cast<int64_t>();
    return by_dtype("logits", logits, [&](auto zero) -> py::array {
        using T = decltype(zero);
        int64_t N = logits.shape(0), V = logits.shape(1);
        const T *pd = input<T>("dout", dout, {N}), *pz = input<T>("logits", logits, {N, V}),
                *pm = input<T>("cached top", top, {N}), *ps = input<T>("cached logsum", logsum, {N});
        auto checked = ids("targets", targets, {N}, V, &ignore_index);
        auto dlogits = fresh<T>({N, V});
        T* pdz = dlogits.mutable_data();
        const int64_t* pt = checked.data();
        {
            py::gil_scoped_release nogil;
            cross_entropy_backward_kernel<T>(pdz, pd, pz, pt, pm, ps, ignore_index, N, V);
        }
        return dlogits;
    });
}

void bind_cross_entropy(py::module_& m) {
    m.def("cross_entropy_forward", &cross_entropy_forward, py::arg("logits"), py::arg("targets"),
          py::arg("ignore_index") = -1);
    m.def("cross_entropy_backward", &cross_entropy_backward, py::arg("dout"), py::arg("cache"));
}
