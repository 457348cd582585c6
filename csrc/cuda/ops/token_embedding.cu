// Token embedding without positions on a GPU. Formulas: minillm/ops/token_embedding.py.
//
//   out[b, t] = wte[tokens[b, t]]          dwte[tokens[b, t]] += dout[b, t]
//
// The kernels are those of embedding.cuh without wpe, and of scatter.cuh.
#include "cuda/ops/embedding.cuh"
#include "cuda/ops/ids.h"

namespace minillm::token_embedding {
namespace {
using namespace embedding;

Tuple token_embedding_forward(const Array& tokens, const Array& wte) {
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        Operands on;
        const T* pte = on.input<T>("wte", wte, {ANY, ANY});
        const int64_t V = wte.shape[0], C = wte.shape[1];
        const Array own = own_ids("tokens", tokens, {ANY, ANY}, V);
        const int64_t* ids = on.ids("tokens", own, {ANY, ANY}, V);
        const Sizes n{tokens.shape[0], tokens.shape[1], C, 0};
        auto out = on.fresh<T>({n.B, n.S, C});
        on.run([&](gpu::Stream s) {
            const T* no_positions = nullptr;
            over(32 * n.rows, embedding_forward<T>, stream_t(s), out.data, ids, pte, no_positions, n,
                 aligned({out.data, pte}, C));
        });
        return tuple_of({out, tuple_of({own, wte})});
    });
}

Object token_embedding_backward(const Array& dout, const Tuple& cache, const Object& into) {
    const Array tokens = cached(cache, 0), wte = cached(cache, 1);
    check_shape("tokens", tokens, {ANY, ANY}), check_shape("wte", wte, {ANY, ANY});
    return by_dtype("wte", wte, [&](auto zero) -> Object {
        using T = decltype(zero);
        Operands on;
        const int64_t N = tokens.shape[0] * tokens.shape[1], C = wte.shape[1];
        const T* pd = on.input<T>("dout", dout, {tokens.shape[0], tokens.shape[1], C});
        const int64_t* ids = on.ids("tokens", tokens, tokens.shape, wte.shape[0]);  // again: a cache is not trusted
        auto d = on.gradients<T>(into, {wte.shape}, true);  // zeros: a batch names few rows
        int64_t* keys = on.scratch<int64_t>(2 * N);
        on.run([&](gpu::Stream s) {
            if (d[0].data) scatter_add(d[0].data, pd, ids, keys, N, C, stream_t(s));
        });
        return d[0];
    });
}

const Register registered[] = {{"token_embedding_forward(tokens, wte)", &token_embedding_forward},
                               {"token_embedding_backward(dout, cache, into=None)", &token_embedding_backward}};

}  // namespace
}  // namespace minillm::token_embedding
