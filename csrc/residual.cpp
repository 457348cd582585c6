// Residual connection. Why it is there: minillm/ops/residual.py.
//
//   out = x + y          dx = dout,  dy = dout   (two fresh copies)
//
// One pass, bound by memory. Parallel over blocks of elements. The cache holds a shape and a dtype, no array.
#include "common.h"
#include "elementwise.h"

template <class T>
void residual_forward_kernel(T* out, const T* x, const T* y, int64_t n) {
    elementwise(n, out, [](Vec<T> a, Vec<T> b) { return a + b; }, x, y);
}

template <class T>
void residual_backward_kernel(T* dx, T* dy, const T* dout, int64_t n) {
    constexpr int64_t BLOCK = 1 << 12;                               // stays in the nearest cache for the second copy
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t block = 0; block < (n + BLOCK - 1) / BLOCK; block++) {
        int64_t begin = block * BLOCK, count = std::min(BLOCK, n - begin);
        std::copy_n(dout + begin, count, dx + begin);
        std::copy_n(dout + begin, count, dy + begin);
    }
}

py::tuple residual_forward(py::array x, py::array y) {
    return by_dtype("x", x, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const T *px = input<T>("x", x, shape_of(x)), *py_ = input<T>("y", y, shape_of(x));
        auto out = fresh<T>(shape_of(x));
        T* po = out.mutable_data();
        {
            py::gil_scoped_release nogil;
            residual_forward_kernel<T>(po, px, py_, out.size());
        }
        return py::make_tuple(out, py::make_tuple(py::cast(shape_of(x)), x.dtype()));
    });
}

py::tuple residual_backward(py::array dout, py::tuple cache) {
    auto shape = cache[0].cast<Shape>();
    return by_dtype("x", py::array(cache[1].cast<py::dtype>(), Shape{0}), [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        const T* pd = input<T>("dout", dout, shape);
        auto dx = fresh<T>(shape), dy = fresh<T>(shape);
        T *pdx = dx.mutable_data(), *pdy = dy.mutable_data();
        {
            py::gil_scoped_release nogil;
            residual_backward_kernel<T>(pdx, pdy, pd, dx.size());
        }
        return py::make_tuple(dx, dy);
    });
}

void bind_residual(py::module_& m) {
    m.def("residual_forward", &residual_forward, py::arg("x"), py::arg("y"));
    m.def("residual_backward", &residual_backward, py::arg("dout"), py::arg("cache"));
}
