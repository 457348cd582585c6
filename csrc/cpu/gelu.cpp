// GELU, the tanh form. Formulas: minillm/ops/gelu.py; how a vector of them is computed: vecmath.h.
//
//   out = gelu(x)          dx = dout * gelu'(x)
//
// One pass; nothing but x is cached, since gelu' costs less to compute than to read. Parallel over blocks of elements.
#include "common.h"
#include "elementwise.h"
#include "vecmath.h"

template <class T>
void gelu_forward_kernel(T* out, const T* x, int64_t n) {
    elementwise(n, out, [](Vec<T> v) { return gelu<T>(v); }, x);
}

template <class T>
void gelu_backward_kernel(T* dx, const T* dout, const T* x, int64_t n) {
    elementwise(n, dx, [](Vec<T> d, Vec<T> v) { return d * gelu_slope<T>(v); }, dout, x);
}

py::tuple gelu_forward(py::array x) {
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const T* px = input<T>("x", x, shape_of(x));
        auto out = fresh<T>(shape_of(x));
        T* po = out.mutable_data();
        {
            py::gil_scoped_release nogil;
            gelu_forward_kernel<T>(po, px, out.size());
        }
        return py::make_tuple(out, py::make_tuple(x));
    });
}

py::array gelu_backward(py::array dout, py::tuple cache) {
    py::array x = cached(cache, 0);
    return by_dtype("x", x, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const T *pd = input<T>("dout", dout, shape_of(x)), *px = input<T>("x", x, shape_of(x));
        auto dx = fresh<T>(shape_of(x));
        T* pdx = dx.mutable_data();
        {
            py::gil_scoped_release nogil;
            gelu_backward_kernel<T>(pdx, pd, px, dx.size());
        }
        return dx;
    });
}

void bind_gelu(py::module_& m) {
    m.def("gelu_forward", &gelu_forward, py::arg("x"));
    m.def("gelu_backward", &gelu_backward, py::arg("dout"), py::arg("cache"));
}
