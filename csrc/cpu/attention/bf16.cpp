// Causal attention in bfloat16: its products, and its cache, qkv and out in half the bytes. The kernels: pairs.cpp.
//
// qkv is rounded, and everything is computed from the rounded numbers, forward and back, so that the probabilities made
// again going back are those of the forward. Parallel over (sequence, head).
#include "cpu/attention/pair.h"
#include "cpu/attention/pairs.h"

namespace minillm::attention_bf16 {

using namespace attention;

void forward_kernel(float* out, bf16* rounded, float* logsumexp, const bf16* qkv, const Sizes& n,
                    bool instruction = has_dot_instruction()) {
#pragma omp parallel
    {
        PairForward head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            auto x = qkv_head(qkv, n, bh);
            attend_pairs(head, out_rows(out, n, b, h), out_rows(rounded, n, b, h), logsumexp + bh * n.T, x.q, x.k, x.v,
                         {}, instruction);
        }
    }
}

void backward_kernel(float* dqkv, const float* dout, const bf16* qkv, const bf16* out, const float* logsumexp,
                     const Sizes& n, bool instruction = has_dot_instruction()) {
#pragma omp parallel
    {
        PairBackward head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            backward_pairs(head, qkv_head(dqkv, n, bh), out_rows(dout, n, b, h), qkv_head(qkv, n, bh),
                           out_rows(out, n, b, h), logsumexp + bh * n.T, false, {}, instruction);
        }
    }
}

Tuple attention_forward_bf16(const Array& qkv, int64_t n_head) {
    Sizes n = sizes_of(qkv, n_head);
    const float* px = input<float>("qkv", qkv, qkv.shape);
    auto out = fresh<float>({n.B, n.T, n.C()}), logsumexp = fresh<float>({n.B, n.NH, n.T});
    auto rounded_qkv = fresh<uint16_t>(qkv.shape), rounded_out = fresh<uint16_t>({n.B, n.T, n.C()});
    bf16 *pr = (bf16*)rounded_qkv.data, *pro = (bf16*)rounded_out.data;
    without_gil([&] {
        round_array(pr, px, n.B * n.T * 3 * n.C());
        forward_kernel(out, pro, logsumexp, pr, n);
    });
    return tuple_of({out, tuple_of({rounded_qkv, n_head, rounded_out, logsumexp})});
}

Object attention_backward_bf16(const Array& dout, const Tuple& cache) {
    Array qkv = cached(cache, 0), out = cached(cache, 2), logsumexp = cached(cache, 3);
    Sizes n = sizes_of(qkv, cached<int64_t>(cache, 1));
    const float* pd = input<float>("dout", dout, {n.B, n.T, n.C()});
    auto* px = (const bf16*)input<uint16_t>("cached qkv", qkv, qkv.shape);
    auto* po = (const bf16*)input<uint16_t>("cached out", out, {n.B, n.T, n.C()});
    const float* pl = input<float>("cached logsumexp", logsumexp, {n.B, n.NH, n.T});
    auto dqkv = fresh<float>(qkv.shape);
    without_gil([&] { backward_kernel(dqkv, pd, px, po, pl, n); });
    return dqkv;
}

// out, logsumexp and dqkv of float qkv, by the instruction or without it: for tests.
Tuple attention_of_pairs(const Array& qkv, int64_t n_head, const Array& dout, bool instruction) {
    Sizes n = sizes_of(qkv, n_head);
    if (instruction && !has_dot_instruction()) fail("instruction must be one that this machine has");
    const float *px = input<float>("qkv", qkv, qkv.shape), *pd = input<float>("dout", dout, {n.B, n.T, n.C()});
    auto out = fresh<float>({n.B, n.T, n.C()}), logsumexp = fresh<float>({n.B, n.NH, n.T}),
         dqkv = fresh<float>(qkv.shape);
    std::vector<bf16> rounded(qkv.size()), rounded_out(dout.size());
    round_array(rounded.data(), px, qkv.size());
    forward_kernel(out, rounded_out.data(), logsumexp, rounded.data(), n, instruction);
    backward_kernel(dqkv, pd, rounded.data(), rounded_out.data(), logsumexp, n, instruction);
    return tuple_of({out, logsumexp, dqkv});
}

const Register registered[] = {{"attention_of_pairs(qkv, n_head, dout, instruction)", &attention_of_pairs},
                               {"attention_forward_bf16(qkv, n_head)", &attention_forward_bf16},
                               {"attention_backward_bf16(dout, cache)", &attention_backward_bf16}};

}  // namespace minillm::attention_bf16
