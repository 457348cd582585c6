// Token embedding without positions. Formulas: minillm/ops/token_embedding.py.
//
//   out[b, t] = wte[tokens[b, t]]          dwte[tokens[b, t]] += dout[b, t]
//
// Loops and order of sums as in embedding.cpp: forward parallel over rows, the scatter-add over strips of columns.
#include <algorithm>

#include "cpu/isa/threads.h"
#include "python/register.h"

namespace minillm::token_embedding {

template <class T>
void forward_kernel(T* out, const int64_t* tokens, const T* wte, int64_t N, int64_t C) {
#pragma omp parallel for if (N * C > 16384)
    for (int64_t n = 0; n < N; n++) std::copy_n(wte + tokens[n] * C, C, out + n * C);
}

template <class T>
void backward_kernel(T* dwte, const T* dout, const int64_t* tokens, int64_t N, int64_t C) {
    constexpr int64_t STRIP = 128;
#pragma omp parallel for schedule(static) if (N * C > 16384)
    for (int64_t strip = 0; strip < (C + STRIP - 1) / STRIP; strip++) {
        int64_t begin = strip * STRIP, end = std::min(C, begin + STRIP);
        for (int64_t n = 0; n < N; n++) {
            const T* d = dout + n * C;
            T* row = dwte + tokens[n] * C;
#pragma omp simd
            for (int64_t i = begin; i < end; i++) row[i] += d[i];
        }
    }
}

Tuple token_embedding_forward(const Array& tokens, const Array& wte) {
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        const T* pte = input<T>("wte", wte, {ANY, ANY});
        auto checked = ids("tokens", tokens, {ANY, ANY}, wte.shape[0]);
        int64_t B = tokens.shape[0], S = tokens.shape[1], C = wte.shape[1];
        auto out = fresh<T>({B, S, C});
        without_gil([&] { forward_kernel<T>(out, checked, pte, B * S, C); });
        return tuple_of({out, tuple_of({checked, wte})});
    });
}

Object token_embedding_backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array tokens = cached(cache, 0), wte = cached(cache, 1);
    check_shape("tokens", tokens, {ANY, ANY}), check_shape("wte", wte, {ANY, ANY});
    return by_dtype("wte", wte, [&](auto zero) -> Object {
        using T = decltype(zero);
        int64_t B = tokens.shape[0], S = tokens.shape[1], C = wte.shape[1];
        const T* pd = input<T>("dout", dout, {B, S, C});
        auto checked = ids("tokens", tokens, {B, S}, wte.shape[0]);  // again: a cache is not trusted
        auto d = gradients<T>(into, {wte.shape}, true);              // zeros: of many rows a batch names few
        if (d[0].data) without_gil([&] { backward_kernel<T>(d[0], pd, checked, B * S, C); });
        return d[0];
    });
}

const Register registered[] = {{"token_embedding_forward(tokens, wte)", &token_embedding_forward},
                               {"token_embedding_backward(dout, cache, into=None)", &token_embedding_backward}};

}  // namespace minillm::token_embedding
