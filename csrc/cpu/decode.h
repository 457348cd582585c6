// What the compiled decoding steps share (decode.cpp for GPT-2, decode_llama.cpp for Llama and its kin): the call's sizes,
// weights in their stored forms, and how Python hands them over.
#pragma once

#include "cpu/attention/3_simd.h"
#include "cpu/gemm/stored_rows.h"
#include "python/register.h"

namespace minillm::decode {

struct Weight {  // a matrix (K, N), inputs by outputs, as it is stored
    const void* data;
    const float* scales;  // (K / group, N) where the numbers are int8 or int4
    int64_t K, N, group;
    char form;  // 'f' float, 't' float as (N, K), 'b' bfloat16, 'i' int8, '4' int4, of which a byte holds two rows
};

// The tokens of a call and where they go: R rows of T new tokens, in a cache of B rows of S tokens.
struct Step {
    int64_t R, T, C, NH, NKV, HS, S, B;
    const int64_t *tokens, *starts, *rows;  // (R, T), (R), (R)
    float *keys, *values;  // (L, B, NKV, S, HS)
    float eps;
    int64_t M() const { return R * T; }
    int64_t longest() const { return T + *std::max_element(starts, starts + R); }
    int64_t head_at(int64_t layer, int64_t r, int64_t h) const { return ((layer * B + rows[r]) * NKV + h) * S * HS; }
    float* keys_at(int64_t layer, int64_t r, int64_t h) const { return keys + head_at(layer, r, h); }
    float* values_at(int64_t layer, int64_t r, int64_t h) const { return values + head_at(layer, r, h); }
};

// The bias where there is one.
struct MaybeBias {
    const float* bias;
    Vec<float> operator()(Vec<float> v, int64_t, int64_t column, int64_t n) const {
        return bias ? v + load_part(bias + column, n) : v;
    }
};

// x += v + bias: the residual connection, as an epilogue.
struct AddToResidual {
    MaybeBias add_bias;
    float* x;
    int64_t C;
    void operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        float* p = x + row * C + column;
        store_part(p, load_part(p, n) + add_bias(v, row, column, n), n);
    }
};

// C (M, N) = A (M, K) @ W by the threads of the region, W in its stored form.
template <class Epilogue>
void stored_matmul(int64_t M, const float* a, const Weight& w, float* c, const Epilogue& epilogue) {
    Matrix<float> A{a, w.K};
    auto with = [&](const auto& rows) { few_rows<float>(M, w.N, w.K, A, rows, c, w.N, false, epilogue); };
    if (M == 0) return;
    if (w.form == 't')
        few_rows_transposed<float>(M, w.N, w.K, A, {(const float*)w.data, w.K, true}, c, w.N, false, epilogue);
    else if (w.form == 'f') with(Matrix<float>{(const float*)w.data, w.N});
    else if (w.form == 'b') with(Bf16Rows{(const bf16*)w.data, w.N});
    else if (w.form == 'i') with(Int8Rows{(const int8_t*)w.data, w.scales, w.N, w.group});
    else with(Int4Rows{(const int8_t*)w.data, w.scales, w.N, w.group, 0});
}

// One number of a matrix that is no float.
inline float number_at(const Weight& w, int64_t k, int64_t j) {
    if (w.form == 'b') return number(((const bf16*)w.data)[k * w.N + j]);
    int64_t pair = ((const int8_t*)w.data)[(w.form == '4' ? k / 2 : k) * w.N + j];
    int64_t value = w.form == 'i' ? pair : k % 2 ? pair >> 4 : int8_t(pair << 4) >> 4;
    return value * w.scales[k / w.group * w.N + j];
}

// The embedding of a token, (C), from the matrix (C, V) that the head reads.
inline void embed(float* x, const Weight& wte, int64_t token) {
    if (wte.form == 't') std::copy_n((const float*)wte.data + token * wte.K, wte.K, x);
    else
        for (int64_t i = 0; i < wte.K; i++) x[i] = number_at(wte, i, token);
}

// ---- from Python: a list of float32 arrays, or pairs (values, scales): int8, int4 as uint8 of two rows a byte, or
// bfloat16's bits with None; None for what a model does not have ----

struct WeightReader {
    List list;
    const char* expected;  // in words
    int64_t next = 0;

    const Object item() {
        if (next == list.size()) fail("weights must hold ", expected, ": got ", list.size());
        return list[next++];
    }
    Array array() {
        auto one = to<Array>(item());
        if (!one) fail("weights[", next - 1, "] must be an array");
        return *one;
    }
    const float* vector(const char* name, int64_t n) { return input<float>(name, array(), {n}); }
    const float* vector_or_none(const char* name, int64_t n) {
        if (next < list.size() && list[next].is_none()) return next++, nullptr;
        return vector(name, n);
    }

    // out_first: a float one is stored (N, K).
    Weight matrix(const char* name, int64_t K, int64_t N, bool out_first = false) {
        auto pair = next < list.size() ? to<Tuple>(list[next]) : std::nullopt;
        if (pair) return next++, stored(name, *pair, K, N);
        Array a = array();
        const float* data = input<float>(name, a, out_first ? Shape{N, K} : Shape{K, N});
        return {data, nullptr, a.shape[out_first], a.shape[!out_first], 1, out_first ? 't' : 'f'};
    }

    static Weight stored(const char* name, const Tuple& pair, int64_t K, int64_t N) {
        if (pair.size() != 2) fail(name, " must be a pair (values, scales)");
        auto values = argument<Array>(pair[0], name);
        bool four = values.dtype == DTYPE<uint8_t>;
        check_shape(name, values, {ANY, ANY});
        if (K == ANY) K = values.shape[0] * (four ? 2 : 1);
        if (pair[1].is_none()) {
            auto* data = input<uint16_t>(name, values, {K, N});
            return {data, nullptr, K, values.shape[1], K, 'b'};
        }
        const void* data = four ? (const void*)input<uint8_t>(name, values, {(K + 1) / 2, N})
                                : (const void*)input<int8_t>(name, values, {K, N});
        auto scales = argument<Array>(pair[1], "scales");
        auto* s = input<float>("scales", scales, {ANY, values.shape[1]});
        int64_t G = scales.shape[0], group = G ? K / G : 0;
        if (G < 1 || group * G != K || (G > 1 && group % DEPTH))
            fail(name, " must have groups of rows of equal size, a multiple of ", DEPTH, ": got ", G, " for ", K,
                 " rows");
        return {data, s, K, values.shape[1], group, four ? '4' : 'i'};
    }
};

// What Python gives but for the weights, checked; `held` keeps the copies of ids alive.
struct Call {
    Step n{};
    int64_t layers;
    std::vector<Object> held;

    Call(const Array& tokens, const Array& starts, const Array& rows, const Array& keys, const Array& values,
         double eps, int64_t count, int64_t n_head) {
        check_shape("tokens", tokens, {ANY, ANY});
        check_shape("keys", keys, {ANY, ANY, ANY, ANY, ANY});
        layers = keys.shape[0];
        n.R = tokens.shape[0], n.T = tokens.shape[1];
        n.B = keys.shape[1], n.NKV = keys.shape[2], n.S = keys.shape[3], n.HS = keys.shape[4];
        n.NH = n_head ? n_head : n.NKV, n.eps = float(eps);
        if (n.M() < 1 || n.M() > FEW) fail("tokens must be 1 to ", FEW, ": got ", tokens.shape);
        if (count < 0 || count > n.T) fail("count must be 0 to ", n.T, ": got ", count);
        if (!n.NKV || n.NH % n.NKV) fail("keys must have a number of heads that divides ", n.NH, ": got ", n.NKV);
        n.keys = in_place<float>("keys", keys, keys.shape);
        n.values = in_place<float>("values", values, keys.shape);
        n.rows = hold(ids("rows", rows, {n.R}, n.B)), n.starts = hold(ids("starts", starts, {n.R}, n.S));
        for (int64_t r = 0; r < n.R; r++)
            if (n.starts[r] > n.S - n.T)
                fail("tokens must fit into block_size ", n.S, ": got ", n.T, " tokens from position ", n.starts[r]);
    }
    void read_tokens(const Array& tokens, int64_t V) { n.tokens = hold(ids("tokens", tokens, {n.R, n.T}, V)); }
    const int64_t* hold(const Result<const int64_t>& made) { return held.push_back(made), made.data; }
};

}  // namespace minillm::decode
