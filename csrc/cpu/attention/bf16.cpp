// Causal attention whose cache is bfloat16: qkv and out in half the bytes. Formulas, order of sums: 3_simd.cpp.
//
// qkv is rounded, and everything is computed from the rounded numbers, forward and back, so that the probabilities made
// again going back are those of the forward. A thread widens one head at a time into memory of its own, which stays in
// its L2, and runs the float kernels there; products of two such numbers are exact in float, sums are float.
// Parallel over (sequence, head).
#include "cpu/attention/3_simd.h"
#include "cpu/attention/pair.h"
#include "cpu/attention/widen.h"

namespace minillm::attention_bf16 {

using namespace attention;

// One head in float: qkv (T, 3 HS) and out (T, HS), seen by the float kernels as a batch of one with one head.
struct WideHead {
    Sizes alone;
    float *qkv, *out;

    WideHead(const Sizes& n, Scratch<float>& memory) : alone{1, n.T, 1, n.HS} {
        qkv = memory.at_least(4 * n.T * n.HS);
        out = qkv + 3 * n.T * n.HS;
    }
    void read_qkv(const bf16* from, const Sizes& n, int64_t b, int64_t h) const {
        for (int64_t which = 0; which < 3; which++)
            widen(qkv_rows(qkv, alone, 0, 0, which), qkv_rows(from, n, b, h, which), n.T, n.HS);
    }
    void read_out(const bf16* from, const Sizes& n, int64_t b, int64_t h) const {
        widen(out_rows(out, alone, 0, 0), out_rows(from, n, b, h), n.T, n.HS);
    }
};

void forward_kernel(float* out, float* logsumexp, const bf16* qkv, const Sizes& n) {
#pragma omp parallel
    {
        thread_local Scratch<float> memory;
        WideHead wide(n, memory);
        ForwardHead<float> head(n.T, n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            wide.read_qkv(qkv, n, b, h);
            const float* x = wide.qkv;
            attend<float, TILE_ROWS>(head, out_rows(out, n, b, h), logsumexp + bh * n.T,
                                     qkv_rows(x, wide.alone, 0, 0, 0), qkv_rows(x, wide.alone, 0, 0, 1),
                                     qkv_rows(x, wide.alone, 0, 0, 2), n.T, n.T);
        }
    }
}

// dqkv (T, 3 HS) of one head goes to its places in dqkv (B, T, 3C).
void place_head(float* dqkv, const float* alone, const Sizes& n, int64_t b, int64_t h) {
    for (int64_t which = 0; which < 3; which++) {
        auto to = qkv_rows(dqkv, n, b, h, which);
        for (int64_t t = 0; t < n.T; t++) std::copy_n(alone + (3 * t + which) * n.HS, n.HS, to[t]);
    }
}

void backward_kernel(float* dqkv, const float* dout, const bf16* qkv, const bf16* out, const float* logsumexp,
                     const Sizes& n) {
#pragma omp parallel
    {
        thread_local Scratch<float> memory, gradients;
        WideHead wide(n, memory);
        float *d = gradients.at_least(4 * n.T * n.HS), *dhead = d + 3 * n.T * n.HS;
        BackwardHead<float> head(n.T, n.HS);
#pragma omp for schedule(dynamic)
        for (int64_t bh = 0; bh < n.B * n.NH; bh++) {
            int64_t b = bh / n.NH, h = bh % n.NH;
            wide.read_qkv(qkv, n, b, h);
            wide.read_out(out, n, b, h);
            for (int64_t t = 0; t < n.T; t++) std::copy_n(out_rows(dout, n, b, h)[t], n.HS, dhead + t * n.HS);
            backward_head<float>(head, qkv_head(d, wide.alone, 0), {dhead, n.HS},
                                 qkv_head<const float>(wide.qkv, wide.alone, 0), {wide.out, n.HS},
                                 logsumexp + bh * n.T);
            place_head(dqkv, d, n, b, h);
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
        forward_kernel(out, logsumexp, pr, n);
        round_array(pro, out, n.B * n.T * n.C());
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

const Register registered[] = {{"attention_forward_bf16(qkv, n_head)", &attention_forward_bf16},
                               {"attention_backward_bf16(dout, cache)", &attention_backward_bf16}};

}  // namespace minillm::attention_bf16
