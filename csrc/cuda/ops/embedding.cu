// Token and position embedding on a GPU: launchers, and the bindings of both steps of the ladder. Kernels: embedding.cuh.
#include "cuda/ops/embedding.cuh"

#include "cuda/ops/ids.h"

namespace minillm::embedding {
namespace {

template <bool NAIVE, class T>
void launch_forward(T* out, const int64_t* tokens, const T* wte, const T* wpe, const Sizes& n, stream_t stream) {
    if (NAIVE) over(n.rows * n.C, naive_embedding_forward<T>, stream, out, tokens, wte, wpe, n);
    else over(32 * n.rows, embedding_forward<T>, stream, out, tokens, wte, wpe, n, aligned({out, wte, wpe}, n.C));
}

// dwte, dwpe: or null, if nobody wants it. keys: room for 2 * rows.
template <bool NAIVE, class T>
void launch_backward(T* dwte, T* dwpe, const T* dout, const int64_t* tokens, int64_t* keys, const Sizes& n,
                     stream_t stream) {
    if (NAIVE) {
        if (dwte) over(n.C, naive_scatter<T>, stream, dwte, dout, tokens, n.rows, n.C);
        if (dwpe) over(n.C, naive_positions_backward<T>, stream, dwpe, dout, n);
        return;
    }
    if (dwte) scatter_add(dwte, dout, tokens, keys, n.rows, n.C, stream);
    if (dwpe && n.B)
        over((n.S * n.C + 3) / 4, positions_backward<T>, stream, dwpe, dout, n,
             aligned({dwpe + n.start * n.C, dout}, n.S * n.C));
}

void check_fits(int64_t S, int64_t start, const Array& wpe) {
    if (start < 0 || start > wpe.shape[0] - S)
        fail("tokens must fit into block_size ", wpe.shape[0], ": got ", S, " tokens from position ", start);
}

template <bool NAIVE>
Tuple embedding_forward_on(const Array& tokens, const Array& wte, const Array& wpe, int64_t start) {
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* pte = on.input<T>("wte", wte, {ANY, ANY});
        const int64_t V = wte.shape[0], C = wte.shape[1];
        const T* ppe = on.input<T>("wpe", wpe, {ANY, C});
        const Array own = own_ids("tokens", tokens, {ANY, ANY}, V);
        const int64_t* ids = on.ids("tokens", own, {ANY, ANY}, V);
        const Sizes n{tokens.shape[0], tokens.shape[1], C, start};
        check_fits(n.S, start, wpe);
        auto out = on.fresh<T>({n.B, n.S, C});
        on.run([&](gpu::Stream s) { launch_forward<NAIVE, T>(out, ids, pte, ppe, n, stream_t(s)); });
        return tuple_of({out, tuple_of({own, wte, wpe, start})});
    });
}

template <bool NAIVE>
Tuple embedding_backward_on(const Array& dout, const Tuple& cache, const Object& into) {
    const Array tokens = cached(cache, 0), wte = cached(cache, 1), wpe = cached(cache, 2);
    check_shape("tokens", tokens, {ANY, ANY}), check_shape("wte", wte, {ANY, ANY});
    check_shape("wpe", wpe, {ANY, wte.shape[1]}), check_dtype("wpe", wpe, wte.dtype);
    const auto start = cached<int64_t>(cache, 3);
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const Sizes n{tokens.shape[0], tokens.shape[1], wte.shape[1], start};
        check_fits(n.S, start, wpe);
        const T* pd = on.input<T>("dout", dout, {n.B, n.S, n.C});
        const int64_t* ids = on.ids("tokens", tokens, {n.B, n.S}, wte.shape[0]);  // again: a cache is not trusted
        auto d = on.gradients<T>(into, {wte.shape, wpe.shape}, true);  // zeros: a batch names few rows
        int64_t* keys = on.scratch<int64_t>(NAIVE ? 0 : 2 * n.rows);
        on.run([&](gpu::Stream s) { launch_backward<NAIVE, T>(d[0], d[1], pd, ids, keys, n, stream_t(s)); });
        return tuple_of({d[0], d[1]});
    });
}

const Register registered[] = {
    {"embedding_forward(tokens, wte, wpe, start=0)", &embedding_forward_on<false>},
    {"embedding_backward(dout, cache, into=None)", &embedding_backward_on<false>},
    {"embedding_forward_1_naive(tokens, wte, wpe, start=0)", &embedding_forward_on<true>},
    {"embedding_backward_1_naive(dout, cache, into=None)", &embedding_backward_on<true>},
};

}  // namespace
}  // namespace minillm::embedding
