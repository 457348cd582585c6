// Token and position embedding. Formulas: minillm/ops/embedding.py.
//
//   out[b, t]          = wte[tokens[b, t]] + wpe[start + t]
//   dwte[tokens[b, t]] += dout[b, t]          dwpe[start + t] += dout[b, t]
//
// Forward: parallel over rows. Backward is a scatter-add: two tokens may want the same row, so it is parallel over
// columns instead. Each thread owns a strip of columns and walks all tokens in order: no atomics, and one order of
// addition whatever the number of threads. Rows of dwte that no token names are never touched.
#include "common.h"
#include "ids.h"

template <class T>
void embedding_forward_kernel(T* out, const int64_t* tokens, const T* wte, const T* wpe, int64_t start, int64_t B,
                              int64_t S, int64_t C) {
#pragma omp parallel for if (B * S * C > 16384)
    for (int64_t n = 0; n < B * S; n++) {
        const T *te = wte + tokens[n] * C, *pe = wpe + (start + n % S) * C;
        T* on = out + n * C;
        for (int64_t i = 0; i < C; i++) on[i] = te[i] + pe[i];
    }
}

// to[place...] += d, unless nobody wants it.
template <class T>
void add_row(T* to, int64_t place, const T* d, int64_t width) {
    if (!to) return;
    T* row = to + place;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) row[i] += d[i];
}

template <class T>
void embedding_backward_kernel(T* dwte, T* dwpe, const T* dout, const int64_t* tokens, int64_t start, int64_t B,
                               int64_t S, int64_t C) {
    constexpr int64_t STRIP = 128;
#pragma omp parallel for schedule(static) if (B * S * C > 16384)
    for (int64_t strip = 0; strip < (C + STRIP - 1) / STRIP; strip++) {
        int64_t begin = strip * STRIP, width = std::min(STRIP, C - begin);
        for (int64_t n = 0; n < B * S; n++) {
            const T* d = dout + n * C + begin;
            add_row(dwte, tokens[n] * C + begin, d, width);
            add_row(dwpe, (start + n % S) * C + begin, d, width);
        }
    }
}

// Zeros from the system's untouched pages: of 50,257 rows a batch names a few hundred.
template <class T>
py::array_t<T> zeros(const Shape& shape) {
    return py::module_::import("numpy").attr("zeros")(shape, py::dtype::of<T>());
}

void check_fits(int64_t S, int64_t start, const py::array& wpe) {
    if (start < 0 || start > wpe.shape(0) - S)
        fail("tokens must fit into block_size " + std::to_string(wpe.shape(0)) + ": got " + std::to_string(S) +
             " tokens from position " + std::to_string(start));
}

py::tuple embedding_forward(py::array tokens, py::array wte, py::array wpe, int64_t start) {
    return by_dtype("wte", wte, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const T* pte = input<T>("wte", wte, {ANY, ANY});
        int64_t V = wte.shape(0), C = wte.shape(1);
        const T* ppe = input<T>("wpe", wpe, {ANY, C});
        auto checked = ids("tokens", tokens, {ANY, ANY}, V);
        int64_t B = checked.shape(0), S = checked.shape(1);
        check_fits(S, start, wpe);
        auto out = fresh<T>({B, S, C});
        T* po = out.mutable_data();
        const int64_t* pt = checked.data();
        {
            py::gil_scoped_release nogil;
            embedding_forward_kernel<T>(po, pt, pte, ppe, start, B, S, C);
        }
        return py::make_tuple(out, py::make_tuple(checked, wte, wpe, start));
    });
}

py::tuple embedding_backward(py::array dout, py::tuple cache, py::object into) {
    py::array tokens = cached(cache, 0), wte = cached(cache, 1), wpe = cached(cache, 2);
    check_shape("tokens", tokens, {ANY, ANY}), check_shape("wte", wte, {ANY, ANY});
    check_shape("wpe", wpe, {ANY, wte.shape(1)});
    auto start = cache[3].cast<int64_t>();
    return by_dtype("wte", wte, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        int64_t B = tokens.shape(0), S = tokens.shape(1), C = wte.shape(1);
        check_fits(S, start, wpe);
        const T* pd = input<T>("dout", dout, {B, S, C});
        auto checked = ids("tokens", tokens, {B, S}, wte.shape(0));      // again: the caller's array may have changed
        auto d = added_to_all<T>(into, {shape_of(wte), shape_of(wpe)}, &zeros<T>);         // dwte, dwpe
        T *pte = d[0].data, *ppe = d[1].data;
        const int64_t* pt = checked.data();
        {
            py::gil_scoped_release nogil;
            embedding_backward_kernel<T>(pte, ppe, pd, pt, start, B, S, C);
        }
        return py::make_tuple(d[0].array, d[1].array);
    });
}

void bind_embedding(py::module_& m) {
    m.def("embedding_forward", &embedding_forward, py::arg("tokens"), py::arg("wte"), py::arg("wpe"),
          py::arg("start") = 0);
    m.def("embedding_backward", &embedding_backward, py::arg("dout"), py::arg("cache"), py::arg("into") = py::none());
}
