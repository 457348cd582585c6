// A step of autoregressive decoding with a KV cache, the whole model in one call: GPT.decode, line for line, for few tokens.
//
//   x = wte[tokens] + wpe[positions]
//   for each block:  x += proj(attention(qkv(ln_1(x)), cache))      x += out(gelu(fc(ln_2(x))))
//   logits = head(ln_f(x))                                          the head is wte again, or a matrix of its own
//
// Why it exists: a step reads every weight once and does little else. At int8 GPT-2 124M has 124 MB of them, some 3 ms;
// sixty calls from Python, each of which wakes the threads again, would add a millisecond. Here the threads start once
// a step and meet between the parts, in `omp for`. The parts are the other files' kernels, so the bits are theirs, too:
// the same as those of the same steps taken one by one from Python, which is the reference and does the long prompts.
//
// Weights are float32, or bfloat16, or int8 with scales, as stored_rows.h reads them; activations and the cache are float.
#include "cpu/attention/3_simd.h"
#include "cpu/gemm/stored_rows.h"
#include "cpu/layernorm.h"
#include "cpu/simd/math.h"
#include "python/register.h"

namespace minillm::decode {

struct Weight {  // a matrix (K, N) as it is stored
    const void* data;
    const float* scales;  // (K / group, N) where the numbers are int8
    int64_t K, N, group;
    char form;  // 'f' float, 'b' bfloat16, 'i' int8
};

struct Block {
    const float *ln_1_weight, *ln_1_bias;
    Weight qkv;
    const float* qkv_bias;
    Weight proj;
    const float *proj_bias, *ln_2_weight, *ln_2_bias;
    Weight fc;
    const float* fc_bias;
    Weight out;
    const float* out_bias;
};

struct DecodeSizes {
    int64_t R, T, C, F, NH, HS, S, B, V;  // rows and new tokens in each; S and B: tokens and rows of the cache
    int64_t M() const { return R * T; }
};

struct Decoder {
    DecodeSizes n;
    const int64_t *tokens, *starts, *rows;  // (R, T), (R), (R)
    Weight wte, head;  // (V, C) as float, the other forms (C, V), as the head reads them
    const float* wpe;
    std::vector<Block> blocks;
    const float *ln_f_weight, *ln_f_bias;
    float *keys, *values;  // (L, B, NH, S, HS)
    float eps;
    const float* query_scales;  // (L): what queries are multiplied by
    bool exact;                 // GELU in its exact form, not by tanh
    float *x, *a, *qkv, *attended, *h, *sums;  // (M, C), (M, C), (M, 3C), (M, C), (M, F), (M, C)
};

// x += v + bias: the residual connection, as an epilogue.
struct AddToResidual {
    AddBias<float> add_bias;
    float* x;
    int64_t C;
    void operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        float* p = x + row * C + column;
        store_part(p, load_part(p, n) + add_bias(v, row, column, n), n);
    }
};

template <bool EXACT>
struct GeluWithBias {
    AddBias<float> add_bias;
    Vec<float> operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        v = add_bias(v, row, column, n);
        return EXACT ? vgelu_exact<float>(v) : vgelu<float>(v);
    }
};

// C (M, N) = A (M, K) @ W by the threads of the region, W in its stored form.
template <class Epilogue>
void stored_matmul(int64_t M, const float* a, const Weight& w, float* c, const Epilogue& epilogue) {
    Matrix<float> A{a, w.K};
    auto with = [&](const auto& rows) { few_rows<float>(M, w.N, w.K, A, rows, c, w.N, false, epilogue); };
    if (w.form == 'f') with(Matrix<float>{(const float*)w.data, w.N});
    else if (w.form == 'b') with(Bf16Rows{(const bf16*)w.data, w.N});
    else with(Int8Rows{(const int8_t*)w.data, w.scales, w.N, w.group});
}

// One number of a stored matrix.
inline float number_at(const Weight& w, int64_t k, int64_t j) {
    int64_t i = k * w.N + j;
    if (w.form == 'b') return number(((const bf16*)w.data)[i]);
    return ((const int8_t*)w.data)[i] * w.scales[k / w.group * w.N + j];
}

inline void embed_row(float* x, const Decoder& d, int64_t token, int64_t position) {
    int64_t C = d.n.C;
    if (d.wte.form == 'f') std::copy_n((const float*)d.wte.data + token * C, C, x);
    else
        for (int64_t i = 0; i < C; i++) x[i] = number_at(d.wte, i, token);
    const float* pe = d.wpe + position * C;
    for (int64_t i = 0; i < C; i++) x[i] = x[i] + pe[i];
}

void embed_rows(const Decoder& d) {
#pragma omp for
    for (int64_t m = 0; m < d.n.M(); m++) embed_row(d.x + m * d.n.C, d, d.tokens[m], d.starts[m / d.n.T] + m % d.n.T);
}

// The last `count` tokens of each row of x, normalised, become the rows of a.
void normalise(const Decoder& d, const float* weight, const float* bias, int64_t count) {
    int64_t C = d.n.C, T = d.n.T;
#pragma omp for
    for (int64_t i = 0; i < d.n.R * count; i++) {
        int64_t m = i / count * T + T - count + i % count;
        float mean, rstd;
        layernorm::forward_row<float>(d.a + i * C, &mean, &rstd, d.x + m * C, weight, bias, d.eps, C);
    }
}

// The new keys and values go to the cache; then each query attends to all that its row has.
void attend_cached(const Decoder& d, attention::ForwardHead<float>& head, int64_t layer) {
    int64_t T = d.n.T, C = d.n.C, NH = d.n.NH, HS = d.n.HS, threads = omp_get_num_threads();
    auto attend_head = T == 1 ? attention::attend<float, 1> : attention::attend<float, TILE_ROWS>;
    auto at = [&](int64_t item) { return ((layer * d.n.B + d.rows[item / NH]) * NH + item % NH) * d.n.S * HS; };
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < d.n.R * NH; item++) {
        int64_t r = item / NH, h = item % NH, start = d.starts[r], then = std::min(item + threads, d.n.R * NH - 1);
        float *k = d.keys + at(item), *v = d.values + at(item);
        float *qkv = d.qkv + r * T * 3 * C + h * HS, scale = d.query_scales[layer];
        for (int64_t t = 0; t < T; t++) {
            for (int64_t i = 0; i < HS && scale != 1; i++) qkv[t * 3 * C + i] *= scale;
            std::copy_n(qkv + t * 3 * C + C, HS, k + (start + t) * HS);
            std::copy_n(qkv + t * 3 * C + 2 * C, HS, v + (start + t) * HS);
        }
        attend_head(head, {d.attended + r * T * C + h * HS, C}, nullptr, {qkv, 3 * C}, {k, HS}, {v, HS}, T, start + T,
                    d.keys + at(then), attention::NO_WINDOW);
    }
}

void decode_block(const Decoder& d, const Block& b, attention::ForwardHead<float>& head, int64_t layer) {
    int64_t M = d.n.M(), C = d.n.C;
    normalise(d, b.ln_1_weight, b.ln_1_bias, d.n.T);
    stored_matmul(M, d.a, b.qkv, d.qkv, AddBias<float>{b.qkv_bias});
    attend_cached(d, head, layer);
    stored_matmul(M, d.attended, b.proj, d.sums, AddToResidual{{b.proj_bias}, d.x, C});
    normalise(d, b.ln_2_weight, b.ln_2_bias, d.n.T);
    if (d.exact) stored_matmul(M, d.a, b.fc, d.h, GeluWithBias<true>{{b.fc_bias}});
    else stored_matmul(M, d.a, b.fc, d.h, GeluWithBias<false>{{b.fc_bias}});
    stored_matmul(M, d.h, b.out, d.sums, AddToResidual{{b.out_bias}, d.x, C});
}

// logits (R, count, V): of the last `count` tokens of each row.
void decode_model(const Decoder& d, float* logits, int64_t count) {
    int64_t R = d.n.R, T = d.n.T, C = d.n.C, V = d.n.V;
    int64_t longest = T + *std::max_element(d.starts, d.starts + R), M = R * count;
    Team team;
#pragma omp parallel if (C * C * int64_t(d.blocks.size()) + C * V > 1 << 18)
    {
        KeptApart apart(team);
        attention::ForwardHead<float> head(T, longest, d.n.HS);
        embed_rows(d);
        for (size_t layer = 0; layer < d.blocks.size(); layer++) decode_block(d, d.blocks[layer], head, layer);
        normalise(d, d.ln_f_weight, d.ln_f_bias, count);
        if (M == 0) {
        } else if (d.head.form == 'f') {
            few_rows_transposed<float>(M, V, C, {d.a, C}, {(const float*)d.head.data, C, true}, logits, V, false,
                                       NoEpilogue());
        } else {
            stored_matmul(M, d.a, d.head, logits, NoEpilogue());
        }
    }
}

// ---- from Python: a list of float32 arrays, or pairs (values, scales): int8, or bfloat16's bits with None ----

struct WeightReader {
    List list;
    int64_t next = 0;

    Array array() {
        if (next == list.size())
            fail("weights must hold wte, wpe, 12 tensors a layer, ln_f's two, and a head that is not wte: got ",
                 list.size());
        auto one = to<Array>(list[next]);
        if (!one) fail("weights[", next, "] must be an array");
        return next++, *one;
    }
    const float* vector(const char* name, int64_t n) { return input<float>(name, array(), {n}); }

    Weight matrix(const char* name, int64_t K, int64_t N) {
        auto pair = next < list.size() ? to<Tuple>(list[next]) : std::nullopt;
        if (pair) return next++, stored(name, *pair, {K, N});
        Array a = array();
        const float* data = input<float>(name, a, {K, N});
        return {data, nullptr, a.shape[0], a.shape[1], 1, 'f'};
    }

    static Weight stored(const char* name, const Tuple& pair, const Shape& shape) {
        if (pair.size() != 2) fail(name, " must be a pair (values, scales)");
        auto values = argument<Array>(pair[0], name);
        if (pair[1].is_none()) {
            auto* data = input<uint16_t>(name, values, shape);
            return {data, nullptr, shape[0], values.shape[1], shape[0], 'b'};
        }
        auto* data = input<int8_t>(name, values, shape);
        auto scales = argument<Array>(pair[1], "scales");
        auto* s = input<float>("scales", scales, {ANY, values.shape[1]});
        int64_t K = shape[0], G = scales.shape[0], group = G ? K / G : 0;
        if (G < 1 || group * G != K || (G > 1 && group % DEPTH))
            fail(name, " must have groups of rows of equal size, a multiple of ", DEPTH, ": got ", G, " for ", K,
                 " rows");
        return {data, s, K, values.shape[1], group, 'i'};
    }

    // wte or a head of its own.
    Weight by_token(const char* name, int64_t V, int64_t C) {
        bool transposed = next < list.size() && to<Tuple>(list[next]);
        return matrix(name, transposed ? C : V, transposed ? V : C);
    }

    Block block(int64_t C, int64_t F) {
        Block b;
        b.ln_1_weight = vector("ln_1.weight", C), b.ln_1_bias = vector("ln_1.bias", C);
        b.qkv = matrix("c_attn.weight", C, 3 * C), b.qkv_bias = vector("c_attn.bias", 3 * C);
        b.proj = matrix("c_proj.weight", C, C), b.proj_bias = vector("c_proj.bias", C);
        b.ln_2_weight = vector("ln_2.weight", C), b.ln_2_bias = vector("ln_2.bias", C);
        b.fc = matrix("c_fc.weight", C, F), b.fc_bias = vector("c_fc.bias", b.fc.N);
        b.out = matrix("c_proj.weight", b.fc.N, C), b.out_bias = vector("c_proj.bias", C);
        return b;
    }
};

void check_positions(const Decoder& d, int64_t block_size) {
    for (int64_t r = 0; r < d.n.R; r++)
        if (d.starts[r] > block_size - d.n.T)
            fail("tokens must fit into block_size ", block_size, ": got ", d.n.T, " tokens from position ",
                 d.starts[r]);
}

Object decode_few(const Array& tokens, const Array& starts, const Array& rows, const List& weights, const Array& keys,
                  const Array& values, double eps, int64_t count, const Object& query_scales, bool exact) {
    check_shape("tokens", tokens, {ANY, ANY});
    check_shape("keys", keys, {ANY, ANY, ANY, ANY, ANY});
    Decoder d;
    int64_t R = tokens.shape[0], T = tokens.shape[1], L = keys.shape[0], NH = keys.shape[2], HS = keys.shape[4];
    d.n = {R, T, NH * HS, 0, NH, HS, keys.shape[3], keys.shape[1], 0};
    int64_t C = d.n.C, M = R * T;
    if (M < 1 || M > FEW) fail("tokens must be 1 to ", FEW, ": got ", tokens.shape);
    if (count < 0 || count > T) fail("count must be 0 to ", T, ": got ", count);
    d.keys = in_place<float>("keys", keys, keys.shape);
    d.values = in_place<float>("values", values, keys.shape);
    auto places = ids("rows", rows, {R}, d.n.B), positions = ids("starts", starts, {R}, d.n.S);
    d.rows = places, d.starts = positions;
    WeightReader reader{weights};
    d.wte = reader.by_token("wte.weight", ANY, C);
    d.n.V = d.wte.form == 'f' ? d.wte.K : d.wte.N;
    d.wpe = input<float>("wpe.weight", reader.array(), {d.n.S, C});
    for (int64_t layer = 0; layer < L; layer++) d.blocks.push_back(reader.block(C, layer ? d.blocks[0].fc.N : ANY));
    d.n.F = L ? d.blocks[0].fc.N : 0;
    d.ln_f_weight = reader.vector("ln_f.weight", C), d.ln_f_bias = reader.vector("ln_f.bias", C);
    d.head = reader.next < weights.size() ? reader.by_token("lm_head.weight", d.n.V, C) : d.wte;
    std::vector<float> ones(L, 1);
    d.query_scales = query_scales.is_none() ? ones.data()
                                            : input<float>("query_scales", argument<Array>(query_scales, "query_scales"), {L});
    d.exact = exact;
    auto checked = ids("tokens", tokens, {R, T}, d.n.V);
    d.tokens = checked, d.eps = float(eps);
    check_positions(d, d.n.S);
    auto logits = fresh<float>({R, count, d.n.V});
    without_gil([&] {
        thread_local Scratch<float> scratch;
        d.x = scratch.at_least(M * (7 * C + d.n.F));
        d.a = d.x + M * C, d.attended = d.a + M * C, d.sums = d.attended + M * C, d.qkv = d.sums + M * C;
        d.h = d.qkv + M * 3 * C;
        decode_model(d, logits, count);
    });
    return logits;
}

const Register registered[] = {{"decode_few(tokens, starts, rows, weights, keys, values, eps, count, query_scales=None, "
                                "exact=False)",
                                &decode_few},
                               {"FEW_TOKENS", FEW}};

}  // namespace minillm::decode
