// Pieces of the linear layer that the fused kernels (mlp.cpp) use as well.
#pragma once

#include "bfloat16.h"
#include "common.h"
#include "gemm.h"

// The last step of a product whose rows share a bias: applied to each number of C just before it is stored.
template <class T>
struct AddBias {
    const T* bias;
    Vec<T> operator()(Vec<T> v, int64_t, int64_t column, int64_t n) const { return v + load_part(bias + column, n); }
};

// sums[j] (+)= sum over rows of x[row, j]: CHUNKS pieces, each summed in order, then the pieces in order. Nothing if
// sums is null.
template <class T, class S>
void column_sums(T* sums, const S* x, int64_t rows, int64_t columns, bool accumulate = false) {
    if (!sums) return;
    thread_local Scratch<T> scratch;
    T* partial = scratch.at_least(CHUNKS * columns);              // (CHUNKS, columns)
#pragma omp parallel for schedule(dynamic) if (rows * columns > 16384)
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
        T* p = partial + chunk * columns;
        std::fill(p, p + columns, T(0));
        Range range = chunk_of(rows, chunk);
        for (int64_t row = range.begin; row < range.end; row++)
            for (int64_t j = 0; j < columns; j++) p[j] += number(x[row * columns + j]);
    }
    if (!accumulate) std::fill(sums, sums + columns, T(0));
    for (int64_t chunk = 0; chunk < CHUNKS; chunk++)
        for (int64_t j = 0; j < columns; j++) sums[j] += partial[chunk * columns + j];
}

// How many rows x has when all axes but the last are counted as rows.
inline int64_t rows_of(const py::array& x) {
    int64_t rows = 1;
    for (py::ssize_t i = 0; i + 1 < x.ndim(); i++) rows *= x.shape(i);
    return rows;
}

// The shape of x with another last axis.
inline Shape with_last(const py::array& x, int64_t size) {
    Shape shape = shape_of(x);
    shape.back() = size;
    return shape;
}

// The pair of bindings for any implementation with forward and backward, as in linear.cpp; some take only float.
template <bool FLOAT_ONLY, class F>
auto by_float(const char* name, const py::array& a, F f) {
    if constexpr (!FLOAT_ONLY) return by_dtype(name, a, f);
    else {
        input<float>(name, a, shape_of(a));
        return f(float());
    }
}

template <template <class> class Layer, bool FLOAT_ONLY>
py::tuple linear_forward(py::array x, py::array weight, py::array bias) {
    return by_float<FLOAT_ONLY>("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t I = last("x", x), N = rows_of(x);
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("weight", weight, {I, ANY});
        int64_t J = weight.shape(1);
        const T* pb = input<T>("bias", bias, {J});
        auto out = fresh<T>(with_last(x, J));
        T* po = out.mutable_data();
        {
            py::gil_scoped_release nogil;
            Layer<T>::forward(po, px, pw, pb, N, I, J);
        }
        return py::make_tuple(out, py::make_tuple(x, weight));
    });
}

template <template <class> class Layer, bool FLOAT_ONLY>
py::tuple linear_backward(py::array dout, py::tuple cache, py::object into) {
    py::array x = cached(cache, 0), weight = cached(cache, 1);
    return by_float<FLOAT_ONLY>("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t I = last("x", x), N = rows_of(x);
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("weight", weight, {I, ANY});
        int64_t J = weight.shape(1);
        const T* pd = input<T>("dout", dout, with_last(x, J));
        auto dx = fresh<T>(shape_of(x));
        auto d = added_to_all<T>(into, {{I, J}, {J}});                             // dweight, dbias
        T *pdx = dx.mutable_data(), *pdw = d[0].data, *pdb = d[1].data;
        bool add = !into.is_none();
        {
            py::gil_scoped_release nogil;
            Layer<T>::backward(pdx, pdw, pdb, add, pd, px, pw, N, I, J);
        }
        return py::make_tuple(dx, d[0].array, d[1].array);
    });
}

template <template <class> class Layer, bool FLOAT_ONLY = false>
void bind_linear_pair(py::module_& m, const string& variant) {
    m.def(("linear_forward" + variant).c_str(), &linear_forward<Layer, FLOAT_ONLY>, py::arg("x"), py::arg("weight"),
          py::arg("bias"));
    m.def(("linear_backward" + variant).c_str(), &linear_backward<Layer, FLOAT_ONLY>, py::arg("dout"), py::arg("cache"),
          py::arg("into") = py::none());
}
