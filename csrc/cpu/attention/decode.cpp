// Attention of a decoding step: few queries against the keys and values of a KV cache. Formulas: minillm/ops/attention.py.
//
// The kernel is 3_simd.cpp's, so a step repeats the bits of the forward. Parallel over (sequence, head).
#include "cpu/attention/3_simd.h"
#include "cpu/attention/options.h"
#include "cpu/isa/threads.h"

namespace minillm::attention {

// A (B, NH, rows, HS) array whose last axis is contiguous: a view of a longer cache will do.
template <class T>
struct HeadsView {
    const char* data;
    int64_t batch, head, row;  // strides, the first two in bytes

    HeadsView(const char* name, const Array& a, const Shape& shape) : data(static_cast<const char*>(a.data)) {
        check_shape(name, a, shape);
        check_dtype(name, a, DTYPE<T>);
        if (a.strides[3] != sizeof(T) && a.shape[3] > 1 && a.size()) fail(name, " must have a contiguous last axis");
        check_aligned(name, a);
        if ((a.strides[0] | a.strides[1] | a.strides[2]) % int64_t(sizeof(T)))
            fail(name, " must have rows a whole number of elements apart");
        batch = a.strides[0], head = a.strides[1], row = a.strides[2] / int64_t(sizeof(T));
    }
    Rows<const T> rows(int64_t b, int64_t h) const {
        return {reinterpret_cast<const T*>(data + b * batch + h * head), row};
    }
};

template <class T>
void decode_kernel(T* out, const HeadsView<T>& q, const HeadsView<T>& k, const HeadsView<T>& v, const Sizes& n,
                   int64_t S, int64_t group, const HeadOptions<T>& options) {
    auto attend_head = n.T == 1 ? attend<T, 1> : attend<T, TILE_ROWS>;
#pragma omp parallel if (S * n.C() > 16384)
    {
        ForwardHead<T> head(n.T, S, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            int64_t then = std::min<int64_t>(bh + omp_get_num_threads(), n.B * n.NH - 1);
            attend_head(head, out_rows(out, n, b, h), nullptr, q.rows(b, h), k.rows(b, h / group), v.rows(b, h / group),
                        n.T, S, k.rows(then / n.NH, then % n.NH / group).data, options.of_head(h));
        }
    }
}

Object attention_decode(const Array& q, const Array& k, const Array& v, int64_t window, const Object& sinks,
                        double softcap) {
    return by_dtype("q", q, [&](auto zero) -> Object {
        using T = decltype(zero);
        check_shape("q", q, {ANY, ANY, ANY, ANY});
        if (q.shape[3] == 0) fail("q must have at least one number a head: got ", q.shape);
        Sizes n{q.shape[0], q.shape[2], q.shape[1], q.shape[3]};
        HeadsView<T> qs("q", q, q.shape), ks("k", k, {n.B, ANY, ANY, n.HS}), vs("v", v, k.shape);
        int64_t NKV = k.shape[1], S = k.shape[2];
        if (n.NH && (!NKV || n.NH % NKV)) fail("k must have a number of heads that divides q's ", n.NH, ": got ", NKV);
        auto options = options_of<T>(window, sinks, softcap, n.NH);
        if (S < n.T) fail("q must not be longer than k: got ", n.T, " queries for ", S, " keys");
        auto out = fresh<T>({n.B, n.T, n.C()});
        without_gil([&] { decode_kernel<T>(out, qs, ks, vs, n, S, n.NH / std::max<int64_t>(1, NKV), options); });
        return out;
    });
}

const Register registered("attention_decode(q, k, v, window=0, sinks=None, softcap=0.0)", &attention_decode);

}  // namespace minillm::attention
