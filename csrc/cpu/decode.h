// What the compiled decoding steps share (decode.cpp for GPT-2, decode_llama.cpp for Llama and its kin): the call's sizes,
// weights in their stored forms, and how Python hands them over.
#pragma once

#include <cmath>

#include "cpu/attention/3_simd.h"
#include "cpu/gemm/stored_rows.h"
#include "cpu/stored_weight.h"

namespace minillm::decode {

// Keys, or values: floats, or 8-bit integers with a scale for each token of a head (models/kv_cache.py).
struct Cached {
    float* floats;  // (L, B, NKV, S, HS), or null
    int8_t* integers;  // the same, or null
    float* scales;  // (L, B, NKV, S)
    int64_t HS;

    void put(int64_t token, const float* x) const {
        if (floats) std::copy_n(x, HS, floats + token * HS);
        else round(integers + token * HS, scales[token], x);
    }
    // One of NaN or infinity makes the scale so, by which all of them will be.
    void round(int8_t* to, float& scale, const float* x) const {
        float top = 0;
        for (int64_t i = 0; i < HS; i++) top = std::isnan(x[i]) || std::fabs(x[i]) > top ? std::fabs(x[i]) : top;
        scale = top / 127.0f;
        const bool usual = scale > 0 && std::isfinite(scale);
        for (int64_t i = 0; i < HS; i++)
            to[i] = usual ? int8_t(std::min(127.0f, std::max(-127.0f, std::nearbyint(x[i] / scale)))) : 0;
    }
    // Tokens [begin, end) as floats.
    void restore(float* to, int64_t begin, int64_t end) const {
        for (int64_t t = begin; t < end; t++, to += HS)
            for (int64_t i = 0; i < HS; i++) to[i] = float(integers[t * HS + i]) * scales[t];
    }
};

// The tokens of a call and where they go: R rows of T new tokens, in a cache of B rows of S tokens.
struct Step {
    int64_t R, T, C, NH, NKV, HS, S, B;
    const int64_t *tokens, *starts, *rows;  // (R, T), (R), (R)
    Cached keys, values;
    float eps;
    int64_t M() const { return R * T; }
    int64_t longest() const { return T + *std::max_element(starts, starts + R); }
    // Where in the cache the first token of a head is.
    int64_t head_at(int64_t layer, int64_t r, int64_t h) const { return ((layer * B + rows[r]) * NKV + h) * S; }
};

// A thread's memory to attend by, and the keys and values of the head in hand where the cache has them as integers.
struct Attending {
    attention::ForwardHead<float> head;
    float *k = nullptr, *v = nullptr;  // (longest, HS)
    int64_t held = -1;  // whose

    explicit Attending(const Step& n) : head(n.T, n.longest(), n.HS) {
        if (n.keys.floats) return;
        thread_local Scratch<float> scratch;
        k = scratch.at_least(2 * n.longest() * n.HS), v = k + n.longest() * n.HS;
    }

    // Of head h of NKV, for queries from row r's start on that see `window` keys: what none sees is left out.
    attention::HeadRows<const float> rows(const Step& n, int64_t layer, int64_t r, int64_t h, int64_t window) {
        int64_t at = n.head_at(layer, r, h);
        if (n.keys.floats) return {{}, {n.keys.floats + at * n.HS, n.HS}, {n.values.floats + at * n.HS, n.HS}};
        int64_t block = attention::BLOCK, first = std::max<int64_t>(0, n.starts[r] - window + 1) / block * block;
        int64_t end = n.starts[r] + n.T;
        if (held != at) {
            n.keys.restore(k + first * n.HS, at + first, at + end);
            n.values.restore(v + first * n.HS, at + first, at + end);
        }
        held = at;
        return {{}, {k, n.HS}, {v, n.HS}};
    }
    // The keys from the token `at` on, to be fetched ahead.
    const float* next(const Step& n, int64_t at) const { return n.keys.floats ? n.keys.floats + at * n.HS : k; }
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

// C (M, N) = A (M, K) @ W by the threads of the region, W in its stored form. Each thread rounds the few rows for itself
// where W is to be multiplied in integers: that takes less than to wait for another.
template <class Epilogue>
void stored_matmul(int64_t M, const float* a, const Weight& w, float* c, const Epilogue& epilogue) {
    Matrix<float> A{a, w.K};
    auto with = [&](const auto& rows) { few_rows<float>(M, w.N, w.K, A, rows, c, w.N, false, epilogue); };
    if (M == 0) return;
    if (w.form == 't')
        few_rows_transposed<float>(M, w.N, w.K, A, {(const float*)w.data, w.K, true}, c, w.N, false, epilogue);
    else if (w.form == 'f') with(Matrix<float>{(const float*)w.data, w.N});
    else if (w.form == 'F') few_rows(M, w.N, w.K, A, w.floats(), c, w.N, epilogue);
    else if (w.form == 'B') few_rows(M, w.N, w.K, A, w.pairs(), c, w.N, epilogue);
    else if (w.form == 'b') with(Bf16Rows{(const bf16*)w.data, w.N});
    else if (w.integer) {
        thread_local Scratch<char> scratch;
        const integer::Stored stored = w.integers();
        integer::Rounded rounded(scratch.at_least(integer::Rounded::bytes(M, stored)), M, stored);
        for (int64_t row = 0; row < M; row++) integer::round_row(rounded, stored, a, row);
        integer::multiply(M, rounded, stored, c, epilogue);
    } else if (w.form == 'i') with(Int8Rows{(const int8_t*)w.data, w.scales, w.N, w.group});
    else with(Int4Rows{(const int8_t*)w.data, w.scales, w.N, w.group, 0});
}

// One number of a matrix that is no array of floats.
inline float number_at(const Weight& w, int64_t k, int64_t j) {
    if (w.form == 'F') return w.number_of_floats(k, j);
    if (w.form == 'B') return w.number_of_pairs(k, j);
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
    bool integers;  // int8 and int4 weights meet activations that are rounded, too (gemm/integer.h)
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
        if (pair) {
            Weight found = stored_weight(name, *pair, K, N);
            found.integer = integers && found.scales;
            return next++, found;
        }
        Array a = array();
        const float* data = input<float>(name, a, out_first ? Shape{N, K} : Shape{K, N});
        return {data, nullptr, a.shape[out_first], a.shape[!out_first], 1, out_first ? 't' : 'f'};
    }
};

// What Python gives but for the weights, checked; `held` keeps the copies of ids alive.
struct Call {
    Step n{};
    int64_t layers;
    std::vector<Object> held;

    Call(const Array& tokens, const Array& starts, const Array& rows, const Array& keys, const Array& values,
         const Object& key_scales, const Object& value_scales, double eps, int64_t count, int64_t n_head) {
        check_shape("tokens", tokens, {ANY, ANY});
        check_shape("keys", keys, {ANY, ANY, ANY, ANY, ANY});
        layers = keys.shape[0];
        n.R = tokens.shape[0], n.T = tokens.shape[1];
        n.B = keys.shape[1], n.NKV = keys.shape[2], n.S = keys.shape[3], n.HS = keys.shape[4];
        n.NH = n_head ? n_head : n.NKV, n.eps = float(eps);
        if (n.M() < 1 || n.M() > FEW) fail("tokens must be 1 to ", FEW, ": got ", tokens.shape);
        if (count < 0 || count > n.T) fail("count must be 0 to ", n.T, ": got ", count);
        if (!n.NKV || n.NH % n.NKV) fail("keys must have a number of heads that divides ", n.NH, ": got ", n.NKV);
        n.keys = cached("keys", keys, "key_scales", key_scales, keys.shape);
        n.values = cached("values", values, "value_scales", value_scales, keys.shape);
        if (!n.keys.floats != !n.values.floats) fail("value_scales must be there where key_scales are");
        n.rows = hold(ids("rows", rows, {n.R}, n.B)), n.starts = hold(ids("starts", starts, {n.R}, n.S));
        for (int64_t r = 0; r < n.R; r++)
            if (n.starts[r] > n.S - n.T)
                fail("tokens must fit into block_size ", n.S, ": got ", n.T, " tokens from position ", n.starts[r]);
    }
    static Cached cached(const char* name, const Array& a, const char* scales_name, const Object& scales,
                         const Shape& shape) {
        if (scales.is_none()) return {in_place<float>(name, a, shape), nullptr, nullptr, shape[4]};
        const Shape each{shape[0], shape[1], shape[2], shape[3]};
        return {nullptr, in_place<int8_t>(name, a, shape),
                in_place<float>(scales_name, argument<Array>(scales, scales_name), each), shape[4]};
    }
    void read_tokens(const Array& tokens, int64_t V) { n.tokens = hold(ids("tokens", tokens, {n.R, n.T}, V)); }
    const int64_t* hold(const Result<const int64_t>& made) { return held.push_back(made), made.data; }
};

}  // namespace minillm::decode
