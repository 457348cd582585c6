// Token ids that come from Python: checked once, so that kernels may index with them.
#pragma once

#include "common.h"

// The array as int64, after checking that it holds integers in [0, size), or ignore_index. Any integer dtype will do:
// ids are few beside the floats they select, so a converted copy costs nothing.
inline py::array_t<int64_t> ids(const char* name, const py::array& a, const Shape& shape, int64_t size,
                                const int64_t* ignore_index = nullptr) {
    check_shape(name, a, shape);
    if (a.dtype().kind() != 'i' && a.dtype().kind() != 'u')
        fail(string(name) + " must be an array of integers: got " + string(py::str(a.dtype())));
    constexpr int ALIGNED = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast | ALIGNED>(a);
    const int64_t* p = wide.data();
    for (int64_t i = 0; i < wide.size(); i++)
        if ((p[i] < 0 || p[i] >= size) && !(ignore_index && p[i] == *ignore_index))
            fail(string(name) + " must be in [0, " + std::to_string(size) + "): got " + std::to_string(p[i]) +
                 " at flat index " + std::to_string(i));
    return wide;
}
