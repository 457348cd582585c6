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
// Weights are float32, bfloat16, or int8 or int4 with scales; activations are float, the cache is float or int8 (decode.h).
#include "cpu/decode.h"
#include "cpu/layernorm.h"
#include "cpu/simd/math.h"

namespace minillm::decode {

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

struct Decoder {
    Step n;
    Weight wte, head;  // (C, V), as the head reads it; a float one is (V, C)
    const float* wpe;
    std::vector<Block> blocks;
    const float *ln_f_weight, *ln_f_bias;
    const float* query_scales;  // (L): what queries are multiplied by
    bool exact;  // GELU in its exact form, not by tanh
    int64_t F;  // width of the MLP
    float *x, *a, *qkv, *attended, *h, *sums;  // (M, C), (M, C), (M, 3C), (M, C), (M, F), (M, C)
};

template <bool EXACT>
struct GeluWithBias {
    AddBias<float> add_bias;
    Vec<float> operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        v = add_bias(v, row, column, n);
        return EXACT ? vgelu_exact<float>(v) : vgelu<float>(v);
    }
};

inline void embed_row(float* x, const Decoder& d, int64_t token, int64_t position) {
    int64_t C = d.n.C;
    embed(x, d.wte, token);
    const float* pe = d.wpe + position * C;
    for (int64_t i = 0; i < C; i++) x[i] = x[i] + pe[i];
}

void embed_rows(const Decoder& d) {
#pragma omp for
    for (int64_t m = 0; m < d.n.M(); m++)
        embed_row(d.x + m * d.n.C, d, d.n.tokens[m], d.n.starts[m / d.n.T] + m % d.n.T);
}

// The last `count` tokens of each row of x, normalised, become the rows of a.
void normalise(const Decoder& d, const float* weight, const float* bias, int64_t count) {
    int64_t C = d.n.C, T = d.n.T;
#pragma omp for
    for (int64_t i = 0; i < d.n.R * count; i++) {
        int64_t m = i / count * T + T - count + i % count;
        float mean, rstd;
        layernorm::forward_row<float>(d.a + i * C, &mean, &rstd, d.x + m * C, weight, bias, d.n.eps, C);
    }
}

// The new keys and values go to the cache; then each query attends to all that its row has.
void attend_cached(const Decoder& d, Attending& memory, int64_t layer) {
    int64_t T = d.n.T, C = d.n.C, NH = d.n.NH, HS = d.n.HS, threads = omp_get_num_threads();
    auto attend_head = T == 1 ? attention::attend<float, 1> : attention::attend<float, TILE_ROWS>;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < d.n.R * NH; item++) {
        int64_t r = item / NH, h = item % NH, start = d.n.starts[r], then = std::min(item + threads, d.n.R * NH - 1);
        int64_t at = d.n.head_at(layer, r, h) + start;
        float *qkv = d.qkv + r * T * 3 * C + h * HS, scale = d.query_scales[layer];
        for (int64_t t = 0; t < T; t++) {
            for (int64_t i = 0; i < HS && scale != 1; i++) qkv[t * 3 * C + i] *= scale;
            d.n.keys.put(at + t, qkv + t * 3 * C + C);
            d.n.values.put(at + t, qkv + t * 3 * C + 2 * C);
        }
        auto seen = memory.rows(d.n, layer, r, h, attention::NO_WINDOW);
        attend_head(memory.head, {d.attended + r * T * C + h * HS, C}, nullptr, {qkv, 3 * C}, seen.k, seen.v, T,
                    start + T, memory.next(d.n, d.n.head_at(layer, then / NH, then % NH)), {});
    }
}

void decode_block(const Decoder& d, const Block& b, Attending& memory, int64_t layer) {
    int64_t M = d.n.M(), C = d.n.C;
    normalise(d, b.ln_1_weight, b.ln_1_bias, d.n.T);
    stored_matmul(M, d.a, b.qkv, d.qkv, AddBias<float>{b.qkv_bias});
    attend_cached(d, memory, layer);
    stored_matmul(M, d.attended, b.proj, d.sums, AddToResidual{{b.proj_bias}, d.x, C});
    normalise(d, b.ln_2_weight, b.ln_2_bias, d.n.T);
    if (d.exact) stored_matmul(M, d.a, b.fc, d.h, GeluWithBias<true>{{b.fc_bias}});
    else stored_matmul(M, d.a, b.fc, d.h, GeluWithBias<false>{{b.fc_bias}});
    stored_matmul(M, d.h, b.out, d.sums, AddToResidual{{b.out_bias}, d.x, C});
}

// logits (R, count, V): of the last `count` tokens of each row.
void decode_model(const Decoder& d, float* logits, int64_t count) {
    int64_t C = d.n.C, layers = d.blocks.size();
#pragma omp parallel if (C * C * layers + C * d.head.N > 1 << 18)
    {
        Attending memory(d.n);
        embed_rows(d);
        for (int64_t layer = 0; layer < layers; layer++) decode_block(d, d.blocks[layer], memory, layer);
        normalise(d, d.ln_f_weight, d.ln_f_bias, count);
        stored_matmul(d.n.R * count, d.a, d.head, logits, NoEpilogue());
    }
}

Block read_block(WeightReader& reader, int64_t C, int64_t F) {
    Block b;
    b.ln_1_weight = reader.vector("ln_1.weight", C), b.ln_1_bias = reader.vector("ln_1.bias", C);
    b.qkv = reader.matrix("c_attn.weight", C, 3 * C), b.qkv_bias = reader.vector("c_attn.bias", 3 * C);
    b.proj = reader.matrix("c_proj.weight", C, C), b.proj_bias = reader.vector("c_proj.bias", C);
    b.ln_2_weight = reader.vector("ln_2.weight", C), b.ln_2_bias = reader.vector("ln_2.bias", C);
    b.fc = reader.matrix("c_fc.weight", C, F), b.fc_bias = reader.vector("c_fc.bias", b.fc.N);
    b.out = reader.matrix("c_proj.weight", b.fc.N, C), b.out_bias = reader.vector("c_proj.bias", C);
    return b;
}

Object decode_few(const Array& tokens, const Array& starts, const Array& rows, const List& weights, const Array& keys,
                  const Array& values, double eps, int64_t count, const Object& query_scales, bool exact, bool integers,
                  const Object& key_scales, const Object& value_scales) {
    Call call(tokens, starts, rows, keys, values, key_scales, value_scales, eps, count, 0);
    int64_t C = call.n.C = call.n.NH * call.n.HS, M = call.n.M();
    WeightReader reader{weights, "wte, wpe, 12 tensors a layer, ln_f's two, and a head that is not wte", integers};
    Decoder d;
    d.wte = reader.matrix("wte.weight", C, ANY, true);
    d.wpe = input<float>("wpe.weight", reader.array(), {call.n.S, C});
    for (int64_t layer = 0; layer < call.layers; layer++)
        d.blocks.push_back(read_block(reader, C, layer ? d.blocks[0].fc.N : ANY));
    d.F = call.layers ? d.blocks[0].fc.N : 0;
    d.ln_f_weight = reader.vector("ln_f.weight", C), d.ln_f_bias = reader.vector("ln_f.bias", C);
    d.head = reader.next < weights.size() ? reader.matrix("lm_head.weight", C, d.wte.N, true) : d.wte;
    std::vector<float> ones(call.layers, 1);
    d.query_scales = query_scales.is_none()
                         ? ones.data()
                         : input<float>("query_scales", argument<Array>(query_scales, "query_scales"), {call.layers});
    d.exact = exact;
    call.read_tokens(tokens, d.wte.N);
    d.n = call.n;
    auto logits = fresh<float>({d.n.R, count, d.wte.N});
    without_gil([&] {
        thread_local Scratch<float> scratch;
        d.x = scratch.at_least(M * (7 * C + d.F));
        d.a = d.x + M * C, d.attended = d.a + M * C, d.sums = d.attended + M * C, d.qkv = d.sums + M * C;
        d.h = d.qkv + M * 3 * C;
        decode_model(d, logits, count);
    });
    return logits;
}

const Register registered[] = {
    {"decode_few(tokens, starts, rows, weights, keys, values, eps, count, query_scales=None, "
     "exact=False, integers=False, key_scales=None, value_scales=None)",
     &decode_few},
    {"FEW_TOKENS", FEW}};

}  // namespace minillm::decode
