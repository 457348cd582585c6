// Rotary position embedding. Formulas: minillm/ops/rope.py.
//
//   out_a = a * cos - b * sin          out_b = b * cos + a * sin          (backward: by -sin)
//
// Memory-bandwidth bound: one pass. Loop order: tokens, heads, pairs; the cosines of a token stay in L1 over its heads.
// Parallel over tokens.
#include "cpu/rope.h"
#include "cpu/isa/threads.h"
#include "python/register.h"

namespace minillm::rope {

// sign: 1 rotates, -1 rotates back.
template <class T>
void rotate(T* out, const T* x, const T* cos, const T* sin, T sign, bool interleaved, int64_t B, int64_t tokens,
            int64_t C, int64_t half) {
#pragma omp parallel for if (B * tokens * C > 16384)
    for (int64_t n = 0; n < B * tokens; n++) {
        int64_t t = n % tokens * half;
        for (int64_t c = n * C; c < (n + 1) * C; c += 2 * half)
            if (interleaved) rotate_head(out + c, x + c, cos + t, sin + t, sign, half, 1, 2);
            else
                rotate_head(out + c, x + c, cos + t, sin + t, sign, half, half,
                            1);  // steps of 1: the loop is vectorised
    }
}

// The array rotated, forward or back.
template <class T>
Object rotated(const char* name, const Array& x, const Array& cos, const Array& sin, int64_t interleaved, T sign) {
    check_shape(name, x, {ANY, ANY, ANY});
    check_shape("cos", cos, {x.shape[1], ANY});
    int64_t half = cos.shape[1], C = x.shape[2];
    const T *px = input<T>(name, x, x.shape), *pc = input<T>("cos", cos, cos.shape),
            *ps = input<T>("sin", sin, cos.shape);
    if (interleaved != 0 && interleaved != 1) fail("interleaved must be 0 or 1: got ", interleaved);
    if (!half || C % (2 * half)) fail(name, " must have a last axis of whole heads of 2 * ", half, " numbers: got ", C);
    auto out = fresh<T>(x.shape);
    without_gil([&] { rotate<T>(out, px, pc, ps, sign, interleaved, x.shape[0], x.shape[1], C, half); });
    return out;
}

Tuple rope_forward(const Array& x, const Array& cos, const Array& sin, int64_t interleaved) {
    return by_dtype("x", x, [&](auto zero) {
        using T = decltype(zero);
        Object out = rotated<T>("x", x, cos, sin, interleaved, T(1));
        return tuple_of({out, tuple_of({Object(x.shape), cos, sin, interleaved})});
    });
}

Object rope_backward(const Array& dout, const Tuple& cache) {
    Shape shape = cached<Shape>(cache, 0);
    Array cos = cached(cache, 1), sin = cached(cache, 2);
    int64_t interleaved = cached<int64_t>(cache, 3);
    check_shape("dout", dout, shape);
    return by_dtype("cos", cos, [&](auto zero) {
        using T = decltype(zero);
        return rotated<T>("dout", dout, cos, sin, interleaved, T(-1));
    });
}

const Register registered[] = {{"rope_forward(x, cos, sin, interleaved=0)", &rope_forward},
                               {"rope_backward(dout, cache)", &rope_backward}};

}  // namespace minillm::rope
