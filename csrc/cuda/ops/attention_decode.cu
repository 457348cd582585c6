// Attention of a decoding step on a GPU: launchers, and the bindings of both steps of the ladder. Kernels:
// attention_decode.cuh.
#include "cuda/ops/attention_decode.cuh"

#include <cstring>

#include "cuda/ops/attention_options.h"

namespace minillm::attention_decode {
namespace {

// parts: room for as many numbers as `room_for` says.
template <class T>
void launch_decode(const Forward<T>& a, T* parts, const Sizes& n, stream_t stream) {
    const int chunks = chunks_of(n);
    launch(decode_chunks<T>, dim3(unsigned(n.heads()), unsigned(chunks)), 32 * WARPS, WARPS * (n.HS + 2) * sizeof(T),
           stream, parts, a, n, chunks);
    launch(join_chunks<T>, dim3(unsigned(n.heads()), unsigned(n.T)), (n.HS + 31) / 32 * 32, 0, stream, a, parts, n,
           chunks);
}
bool is_for_chunks(const Sizes& n) { return n.heads() && n.T && n.T <= FEW && chunks_of(n) <= 65535; }
int64_t room_for(const Sizes& n) { return n.heads() * n.T * chunks_of(n) * (n.HS + 2); }

// The numbers of an array (B, heads, rows, HS) of NumPy in one piece.
template <class T>
Result<T> gathered(const Array& a) {
    auto made = fresh<T>(a.shape);
    T* to = made.data;
    const char* data = static_cast<const char*>(a.data);
    for (int64_t b = 0; b < a.shape[0]; b++)
        for (int64_t h = 0; h < a.shape[1]; h++)
            for (int64_t t = 0; t < a.shape[2]; t++, to += a.shape[3])
                std::memcpy(to, data + b * a.strides[0] + h * a.strides[1] + t * a.strides[2], a.shape[3] * sizeof(T));
    return made;
}

// A (B, heads, rows, HS) array whose last axis is contiguous: a view of a longer cache will do.
template <class T>
View<const T> heads_of(Operands& on, const char* name, const Array& a, const Shape& shape) {
    constexpr int64_t SIZE = sizeof(T);
    check_shape(name, a, shape);
    check_dtype(name, a, DTYPE<T>);
    if (a.strides[3] != SIZE && a.shape[3] > 1 && a.size()) fail(name, " must have a contiguous last axis");
    check_aligned(name, a);
    if ((a.strides[0] | a.strides[1] | a.strides[2]) % SIZE)
        fail(name, " must have rows a whole number of elements apart");
    if (a.on_device && !a.contiguous)
        return {on.strided<T>(name, a), a.strides[0] / SIZE, a.strides[1] / SIZE, a.strides[2] / SIZE};
    const Array whole = a.contiguous ? a : *to<Array>(gathered<T>(a));
    const int64_t row = a.shape[3], head = a.shape[2] * row;
    return {on.input<T>(name, whole, a.shape), a.shape[1] * head, head, row};
}

template <bool NAIVE>
Object attention_decode(const Array& q, const Array& k, const Array& v, int64_t window, double softcap,
                        const Object& sinks) {
    return by_dtype("q", q, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        check_shape("q", q, {ANY, ANY, ANY, ANY});
        const int64_t B = q.shape[0], NH = q.shape[1], tokens = q.shape[2], HS = q.shape[3];
        if (!HS) fail("q must have at least one number a head: got ", q.shape);
        const auto qs = heads_of<T>(on, "q", q, q.shape), ks = heads_of<T>(on, "k", k, {B, ANY, ANY, HS}),
                   vs = heads_of<T>(on, "v", v, k.shape);
        const int64_t NKV = k.shape[1], S = k.shape[2];
        if (NH && (!NKV || NH % NKV)) fail("k must have a number of heads that divides q's ", NH, ": got ", NKV);
        if (S < tokens) fail("q must not be longer than k: got ", tokens, " queries for ", S, " keys");
        check_head("q", HS, S);
        Sizes n = {B, NH, int(tokens), int(HS), 1 / std::sqrt(double(HS)), true};
        n.group = NH ? int(NH / NKV) : 1;
        n.past = int(S - tokens);
        const T* ps = options_of<T>(on, n, window, softcap, sinks);
        auto out = on.fresh<T>({B, tokens, NH * HS});
        const Forward<T> arrays = {qs, ks, vs, side_by_side(out.data, tokens, NH, HS), nullptr, ps};
        const bool chunks = !NAIVE && is_for_chunks(n);
        T* parts = on.scratch<T>(chunks ? room_for(n) : 0);
        on.run([&](gpu::Stream s) {
            if (chunks) launch_decode(arrays, parts, n, stream_t(s));
            else forward(NAIVE ? Variant::naive : Variant::flash, arrays, n, s);
        });
        return out;
    });
}

const Register registered[] = {
    {"attention_decode(q, k, v, window=0, softcap=0.0, sinks=None)", &attention_decode<false>},
    {"attention_decode_1_naive(q, k, v, window=0, softcap=0.0, sinks=None)", &attention_decode<true>}};

}  // namespace
}  // namespace minillm::attention_decode
