// Token and position embedding. Formulas: minillm/ops/embedding.py.
//
//   out[b, t]          = wte[tokens[b, t]] + wpe[start + t]
//   dwte[tokens[b, t]] += dout[b, t]          dwpe[start + t] += dout[b, t]
//
// Forward: parallel over rows. Backward is a scatter-add: two tokens may want the same row, so it is parallel over
// columns instead. Each thread owns a strip of columns and walks all tokens in order: no atomics, and one order of
// addition whatever the number of threads. Rows of dwte that no token names are never touched.
#include "cpu/isa/threads.h"
#include "python/register.h"

namespace minillm::embedding {

template <class T>
void forward_kernel(T* out, const int64_t* tokens, const T* wte, const T* wpe, int64_t start, int64_t B, int64_t S,
                    int64_t C) {
#pragma omp parallel for if (B * S * C > 16384)
    for (int64_t n = 0; n < B * S; n++) {
        const T *te = wte + tokens[n] * C, *pe = wpe + (start + n % S) * C;
        T* on = out + n * C;
        for (int64_t i = 0; i < C; i++) on[i] = te[i] + pe[i];
    }
}

// to[place...] += d, unless nobody wants it.
template <class T>
void add_row(T* to, int64_t place, const T* d, int64_t width) {
    if (!to) return;
    T* row = to + place;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) row[i] += d[i];
}

template <class T>
void backward_kernel(T* dwte, T* dwpe, const T* dout, const int64_t* tokens, int64_t start, int64_t B, int64_t S,
                     int64_t C) {
    constexpr int64_t STRIP = 128;
#pragma omp parallel for schedule(static) if (B * S * C > 16384)
    for (int64_t strip = 0; strip < (C + STRIP - 1) / STRIP; strip++) {
        int64_t begin = strip * STRIP, width = std::min(STRIP, C - begin);
        for (int64_t n = 0; n < B * S; n++) {
            const T* d = dout + n * C + begin;
            add_row(dwte, tokens[n] * C + begin, d, width);
            add_row(dwpe, (start + n % S) * C + begin, d, width);
        }
    }
}

void check_fits(int64_t S, int64_t start, const Array& wpe) {
    if (start < 0 || start > wpe.shape[0] - S)
        fail("tokens must fit into block_size ", wpe.shape[0], ": got ", S, " tokens from position ", start);
}

Tuple embedding_forward(const Array& tokens, const Array& wte, const Array& wpe, int64_t start) {
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        const T* pte = input<T>("wte", wte, {ANY, ANY});
        int64_t V = wte.shape[0], C = wte.shape[1];
        const T* ppe = input<T>("wpe", wpe, {ANY, C});
        auto checked = ids("tokens", tokens, {ANY, ANY}, V);
        int64_t B = tokens.shape[0], S = tokens.shape[1];
        check_fits(S, start, wpe);
        auto out = fresh<T>({B, S, C});
        without_gil([&] { forward_kernel<T>(out, checked, pte, ppe, start, B, S, C); });
        return tuple_of({out, tuple_of({checked, wte, wpe, start})});
    });
}

Tuple embedding_backward(const Array& dout, const Tuple& cache, const Object& into) {
    Array tokens = cached(cache, 0), wte = cached(cache, 1), wpe = cached(cache, 2);
    check_shape("tokens", tokens, {ANY, ANY}), check_shape("wte", wte, {ANY, ANY});
    check_shape("wpe", wpe, {ANY, wte.shape[1]}), check_dtype("wpe", wpe, wte.dtype);
    auto start = cached<int64_t>(cache, 3);
    return by_dtype("wte", wte, [&](auto zero) {
        using T = decltype(zero);
        int64_t B = tokens.shape[0], S = tokens.shape[1], C = wte.shape[1];
        check_fits(S, start, wpe);
        const T* pd = input<T>("dout", dout, {B, S, C});
        auto checked = ids("tokens", tokens, {B, S}, wte.shape[0]);  // again: a cache is not trusted
        auto d = gradients<T>(into, {wte.shape, wpe.shape}, true);  // zeros: of 50,257 rows a batch names few
        without_gil([&] { backward_kernel<T>(d[0], d[1], pd, checked, start, B, S, C); });
        return tuple_of({d[0], d[1]});
    });
}

const Register registered[] = {{"embedding_forward(tokens, wte, wpe, start=0)", &embedding_forward},
                               {"embedding_backward(dout, cache, into=None)", &embedding_backward}};

}  // namespace minillm::embedding
