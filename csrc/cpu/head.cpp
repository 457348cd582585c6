// The output head: logits for every token of the vocabulary. Formula: minillm/ops/head.py.
//
//   logits = x @ wte.T         x (N, C), wte (V, C)
//
// One GEMM, or, for the few rows of a decoding step, few_rows.h: the same sums in the same order.
#include "cpu/gemm/matmul.h"
#include "python/register.h"

namespace minillm::head {

Object head(const Array& x, const Array& wte) {
    return by_dtype("x", x, [&](auto zero) -> Object {
        using T = decltype(zero);
        int64_t C = last("x", x), N = x.rows();
        const T *px = input<T>("x", x, x.shape), *pw = input<T>("wte", wte, {ANY, C});
        int64_t V = wte.shape[0];
        auto logits = fresh<T>(x.with_last(V));
        without_gil([&] { matmul<T>(N, V, C, {px, C}, {pw, C, true}, logits, V); });
        return logits;
    });
}

const Register registered("head(x, wte)", &head);

}  // namespace minillm::head
