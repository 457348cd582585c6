// Causal attention, flash style: tiles of keys, a running softmax, no T x T memory. Formulas: minillm/ops/attention.py.
//
// The work is done by the rungs: attention_1_naive.h, attention_2_blocked.h (the running softmax in plain loops), and
// attention_3_simd.h, which is what everybody gets. Here they meet Python, and here are the decoding steps: few queries
// against the keys and values of a cache.
#include "attention.h"
#include "attention_1_naive.h"
#include "attention_2_blocked.h"
#include "attention_3_simd.h"

AttentionSizes attention_sizes(const py::array& qkv, int64_t n_head) {
    check_shape("qkv", qkv, {ANY, ANY, ANY});
    int64_t width = qkv.shape(2);
    if (n_head < 1 || n_head > width / 3 || width % (3 * n_head))
        fail("qkv must have a last axis of 3 * n_head * HS: got " + std::to_string(width) + " with n_head=" +
             std::to_string(n_head));
    return {qkv.shape(0), qkv.shape(1), n_head, width / (3 * n_head)};
}

// Rung: the struct whose forward and backward do the work.
template <class Rung>
py::tuple attention_forward(py::array qkv, int64_t n_head) {
    return by_dtype("qkv", qkv, [&](auto zero) -> py::tuple {
        using T = decltype(zero);
        AttentionSizes n = attention_sizes(qkv, n_head);
        const T* px = input<T>("qkv", qkv, shape_of(qkv));
        auto out = fresh<T>({n.B, n.T, n.C()}), logsumexp = fresh<T>({n.B, n.NH, n.T});
        T *po = out.mutable_data(), *pl = logsumexp.mutable_data();
        {
            py::gil_scoped_release nogil;
            Rung::forward(po, pl, px, n);
        }
        return py::make_tuple(out, py::make_tuple(qkv, n_head, out, logsumexp));
    });
}

template <class Rung>
py::array attention_backward(py::array dout, py::tuple cache) {
    py::array qkv = cached(cache, 0), out = cached(cache, 2), logsumexp = cached(cache, 3);
    return by_dtype("qkv", qkv, [&](auto zero) -> py::array {
        using T = decltype(zero);
        AttentionSizes n = attention_sizes(qkv, cache[1].cast<int64_t>());
        const T *pd = input<T>("dout", dout, {n.B, n.T, n.C()}), *px = input<T>("qkv", qkv, shape_of(qkv)),
                *po = input<T>("cached out", out, {n.B, n.T, n.C()}),
                *pl = input<T>("cached logsumexp", logsumexp, {n.B, n.NH, n.T});
        auto dqkv = fresh<T>(shape_of(qkv));
        T* pdx = dqkv.mutable_data();
        {
            py::gil_scoped_release nogil;
            Rung::backward(pdx, pd, px, po, pl, n);
        }
        return dqkv;
    });
}

// A (B, NH, rows, HS) array whose last axis is contiguous: a view of a longer cache will do.
template <class T>
struct HeadsView {
    const char* data;
    int64_t batch, head, row;                      // strides in bytes
    HeadsView(const char* name, const py::array& a, const Shape& shape) {
        check_shape(name, a, shape);
        if (!py::isinstance<py::array_t<T>>(a))
            fail(string(name) + " must have dtype " + string(py::str(py::dtype::of<T>())) + ": got " +
                 string(py::str(a.dtype())));
        if (a.strides(3) != sizeof(T) && a.shape(3) > 1 && a.size()) fail(string(name) + " must have a contiguous last axis");
        check_aligned(name, a);
        if ((a.strides(0) | a.strides(1) | a.strides(2)) % int64_t(sizeof(T)))
            fail(string(name) + " must have rows a whole number of elements apart");
        data = static_cast<const char*>(a.data());
        batch = a.strides(0), head = a.strides(1), row = a.strides(2) / int64_t(sizeof(T));
    }
    Rows<const T> rows(int64_t b, int64_t h) const {
        return {reinterpret_cast<const T*>(data + b * batch + h * head), row};
    }
};

template <class T>
void decode_kernel(T* out, const HeadsView<T>& q, const HeadsView<T>& k, const HeadsView<T>& v, const AttentionSizes& n,
                   int64_t S) {
    auto attend_head = n.T == 1 ? attend<T, 1> : attend<T, TILE_ROWS>;
#pragma omp parallel if (S * n.C() > 16384)
    {
        ForwardHead<T> head(n.T, S, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH, then = std::min<int64_t>(bh + omp_get_num_threads(), n.B * n.NH - 1);
            attend_head(head, out_rows(out, n, b, h), nullptr, q.rows(b, h), k.rows(b, h), v.rows(b, h), n.T, S,
                        k.rows(then / n.NH, then % n.NH).data);
        }
    }
}

py::array attention_decode(py::array q, py::array k, py::array v) {
    return by_dtype("q", q, [&](auto zero) -> py::array {
        using T = decltype(zero);
        check_shape("q", q, {ANY, ANY, ANY, ANY});
        if (q.shape(3) == 0) fail("q must have at least one number a head: got " + shape_text(q));
        AttentionSizes n{q.shape(0), q.shape(2), q.shape(1), q.shape(3)};
        HeadsView<T> qs("q", q, shape_of(q)), ks("k", k, {n.B, n.NH, ANY, n.HS});
        int64_t S = k.shape(2);
        HeadsView<T> vs("v", v, {n.B, n.NH, S, n.HS});
        if (S < n.T)
            fail("q must not be longer than k: got " + std::to_string(n.T) + " queries for " + std::to_string(S) +
                 " keys");
        auto out = fresh<T>({n.B, n.T, n.C()});
        T* po = out.mutable_data();
        {
            py::gil_scoped_release nogil;
            decode_kernel(po, qs, ks, vs, n, S);
        }
        return out;
    });
}

template <class Rung>
void bind_attention_rung(py::module_& m, const char* variant) {
    m.def(("attention_forward" + string(variant)).c_str(), &attention_forward<Rung>, py::arg("qkv"), py::arg("n_head"));
    m.def(("attention_backward" + string(variant)).c_str(), &attention_backward<Rung>, py::arg("dout"),
          py::arg("cache"));
}

void bind_attention(py::module_& m) {
    bind_attention_rung<AttentionNaive>(m, "_1_naive");
    bind_attention_rung<AttentionBlocked>(m, "_2_blocked");
    bind_attention_rung<AttentionSimd>(m, "_3_simd");
    bind_attention_rung<AttentionSimd>(m, "");
    m.def("attention_decode", &attention_decode, py::arg("q"), py::arg("k"), py::arg("v"));
}
