// Rotary position embedding on a GPU: launchers and bindings. Kernels: rope.cuh.
#include "cuda/ops/rope.cuh"

#include "cuda/ops/operands.h"

namespace minillm::rope {
namespace {
template <bool NAIVE, class T>
void run(Rotation<T> r, stream_t stream) {
    if (!r.tokens || !r.C) return;
    const std::initializer_list<const void*> arrays = {r.out, r.x, r.cos, r.sin};
    r.aligned = cuda::aligned(arrays, r.half);
    const int64_t each = NAIVE ? r.C / 2 : r.C / (2 * r.half) * ((r.half + 3) / 4);
    launch(NAIVE ? naive_rope<T> : rope<T>, cuda::blocks_for(r.tokens, 1), cuda::threads_for(each), 0, stream, r);
}

// The array rotated, forward or back.
template <bool NAIVE, class T>
Object rotated(const char* name, const Array& x, const Array& cos, const Array& sin, int64_t interleaved, T sign) {
    Operands on;
    check_shape(name, x, {ANY, ANY, ANY});
    check_shape("cos", cos, {x.shape[1], ANY});
    const int64_t half = cos.shape[1], C = x.shape[2];
    const T *px = on.input<T>(name, x, x.shape), *pc = on.input<T>("cos", cos, cos.shape),
            *ps = on.input<T>("sin", sin, cos.shape);
    if (interleaved != 0 && interleaved != 1) fail("interleaved must be 0 or 1: got ", interleaved);
    if (!half || C % (2 * half)) fail(name, " must have a last axis of whole heads of 2 * ", half, " numbers: got ", C);
    auto out = on.fresh<T>(x.shape);
    const Rotation<T> r = {out,  px, pc, ps, sign, x.shape[0] * x.shape[1], x.shape[1], C, half, interleaved == 1,
                           false};
    on.run([&](gpu::Stream s) { run<NAIVE>(r, stream_t(s)); });
    return out;
}

template <bool NAIVE>
Tuple rope_forward(const Array& x, const Array& cos, const Array& sin, int64_t interleaved) {
    return by_dtype("x", x, [&](auto zero) {
        const Object out = rotated<NAIVE>("x", x, cos, sin, interleaved, decltype(zero)(1));
        return tuple_of({out, tuple_of({Object(x.shape), cos, sin, interleaved})});
    });
}

template <bool NAIVE>
Object rope_backward(const Array& dout, const Tuple& cache) {
    const Shape shape = cached<Shape>(cache, 0);
    const Array cos = cached(cache, 1), sin = cached(cache, 2);
    const int64_t interleaved = cached<int64_t>(cache, 3);
    check_shape("dout", dout, shape);
    return by_dtype("cos", cos,
                    [&](auto zero) { return rotated<NAIVE>("dout", dout, cos, sin, interleaved, decltype(zero)(-1)); });
}

const Register registered[] = {{"rope_forward(x, cos, sin, interleaved=0)", &rope_forward<false>},
                               {"rope_backward(dout, cache)", &rope_backward<false>},
                               {"rope_forward_1_naive(x, cos, sin, interleaved=0)", &rope_forward<true>},
                               {"rope_backward_1_naive(dout, cache)", &rope_backward<true>}};
}  // namespace
}  // namespace minillm::rope
