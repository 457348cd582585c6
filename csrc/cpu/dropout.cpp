// Dropout with a mask that is a function of (seed, step, site, element). Formulas: minillm/ops/dropout.py.
//
//   keep[i] = bits(i) >= ceil(p * 2^32)          out[i] = keep[i] ? x[i] / (1 - p) : 0          dx the same, from dout
//
// How the mask is drawn: dropout_mask.h. Parallel over groups of elements.
#include "cpu/dropout_mask.h"
#include "python/register.h"

namespace minillm::dropout {

template <class T>
void dropout_kernel(T* out, const T* x, const uint8_t* keep, int64_t n, double p) {
    const T scale = T(1 / (1 - p));
#pragma omp parallel for schedule(static) if (n > GROUP)
    for (int64_t group = 0; group < (n + GROUP - 1) / GROUP; group++) {
        int64_t i = group * GROUP, end = std::min(n, i + GROUP);
        for (; i + WIDTH<T> <= end; i += WIDTH<T>) store(out + i, kept<T>(load(x + i) * scale, keep, i));
        if (i < end) store_part(out + i, kept<T>(load_part(x + i, end - i) * scale, keep, i), end - i);
    }
}

template <class T>
Result<T> dropped(const char* name, const Array& x, const Shape& shape, double p, const Array& keep) {
    const T* px = input<T>(name, x, shape);
    const uint8_t* pk = input<uint8_t>("cached keep", keep, {mask_bytes(x.size())});
    auto out = fresh<T>(shape);
    without_gil([&] { dropout_kernel<T>(out, px, pk, x.size(), p); });
    return out;
}

Tuple dropout_forward(const Array& x, double p, const Tuple& key) {
    if (!(p >= 0 && p < 1)) fail("p must be a number with 0 <= p < 1: got ", p);
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        input<T>("x", x, x.shape);
        PhiloxKey words = philox_key(key);
        auto keep = fresh<uint8_t>({mask_bytes(x.size())});
        without_gil([&] { mask_kernel(keep, x.size(), p, words); });
        return tuple_of({dropped<T>("x", x, x.shape, p, *to<Array>(keep)), tuple_of({keep, p, x.shape, x.dtype})});
    });
}

Object dropout_backward(const Array& dout, const Tuple& cache) {
    return by_dtype("x", cached<string>(cache, 3), [&](auto zero) -> Object {
        return dropped<decltype(zero)>("dout", dout, cached<Shape>(cache, 2), cached<double>(cache, 1),
                                       cached(cache, 0));
    });
}

const Register registered[] = {{"dropout_forward(x, p, key)", &dropout_forward},
                               {"dropout_backward(dout, cache)", &dropout_backward}};

}  // namespace minillm::dropout
