// The output head: logits for every token of the vocabulary. Formula: minillm/ops/head.py.
//
//   logits = x @ wte.T         x (N, C), wte (V, C)
//
// One product by gemm.h, or, for the few rows of a decoding step, by few_rows.h: the same sums in the same order.
#include "linear.h"

py::array head(py::array x, py::array wte) {
    return by_dtype("x", x, [&](auto zero) -> py::array {
        using T = decltype(zero);
        int64_t C = last("x", x), N = rows_of(x);
        const T *px = input<T>("x", x, shape_of(x)), *pw = input<T>("wte", wte, {ANY, C});
        int64_t V = wte.shape(0);
        auto logits = fresh<T>(with_last(x, V));
        T* po = logits.mutable_data();
        {
            py::gil_scoped_release nogil;
            multiply<T>(N, V, C, {px, C}, {pw, C, true}, po, V);
        }
        return logits;
    });
}

void bind_head(py::module_& m) { m.def("head", &head, py::arg("x"), py::arg("wte")); }
