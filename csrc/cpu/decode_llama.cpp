// A step of decoding with a KV cache, a whole Llama in one call: Llama.decode, line for line, for few tokens. decode.cpp is
// the same for GPT-2, and says why it exists.
//
//   x = embedding[tokens]
//   for each block:  q, k, v = projections of norm(x);  q, k rotated (and normalised before, each head)
//                    x += o(attention(q, cache))        n = norm(x);  x += down(silu(gate(n)) * up(n))
//   logits = norm(x) @ head.T
//
// A float weight is (outputs, inputs), as the files have it, the other forms are transposed (decode.h).
#include "cpu/decode.h"
#include "cpu/rmsnorm.h"
#include "cpu/rope.h"
#include "cpu/simd/math.h"

namespace minillm::decode_llama {

using namespace decode;

struct Layer {  // a projection; its bias may be null
    Weight weight;
    const float* bias;
};

struct Block {
    const float* norm_1;
    Layer q, k, v;
    const float *q_norm, *k_norm;  // of a head, or null
    Layer o;
    const float* norm_2;
    Layer gate, up, down;
    int64_t window;
};

struct Decoder {
    Step n;
    int64_t inner;
    Weight embedding, head;
    std::vector<Block> blocks;
    const float *norm, *cos, *sin;  // cos, sin: (S, HS / 2)
    float *x, *a, *sums;  // (M, C); sums (M, C): of products that are added to x
    float *q, *rotated, *attended;  // (M, NH * HS)
    float *k, *v;  // (M, NKV * HS)
    float *gate, *h;  // (M, inner)
};

// silu(gate) * (v + bias)
struct SwigluWithGate {
    MaybeBias add_bias;
    const float* gate;
    int64_t inner;
    Vec<float> operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        return vsilu<float>(load_part(gate + row * inner + column, n)) * add_bias(v, row, column, n);
    }
};

void project(const Decoder& d, const float* a, const Layer& layer, float* out) {
    stored_matmul(d.n.M(), a, layer.weight, out, MaybeBias{layer.bias});
}

void add_projected(const Decoder& d, const float* a, const Layer& layer) {
    stored_matmul(d.n.M(), a, layer.weight, d.sums, AddToResidual{{layer.bias}, d.x, d.n.C});
}

// The last `count` tokens of each row of x, normalised, become the rows of a.
void normalise(const Decoder& d, const float* weight, int64_t count) {
    int64_t C = d.n.C, T = d.n.T;
#pragma omp for
    for (int64_t i = 0; i < d.n.R * count; i++)
        rmsnorm::forward_row(d.a + i * C, d.x + (i / count * T + T - count + i % count) * C, weight, d.n.eps, C);
}

// A head, normalised where there is a weight, and rotated to its position.
void place_head(const Decoder& d, float* out, const float* x, const float* norm, int64_t position, float* between) {
    int64_t HS = d.n.HS, half = HS / 2, at = position * half;
    if (norm) rmsnorm::forward_row(between, x, norm, d.n.eps, HS), x = between;
    rope::rotate_head(out, x, d.cos + at, d.sin + at, 1.0f, half, half, 1);
}

// Queries are rotated; keys go to the cache, rotated, and values as they are.
void place_heads(const Decoder& d, const Block& b, int64_t layer, float* between) {
    int64_t NH = d.n.NH, NKV = d.n.NKV, HS = d.n.HS, heads = NH + 2 * NKV;
#pragma omp for
    for (int64_t item = 0; item < d.n.M() * heads; item++) {
        int64_t m = item / heads, h = item % heads, r = m / d.n.T, position = d.n.starts[r] + m % d.n.T;
        int64_t q = (m * NH + h) * HS, g = (h - NH) % NKV, kv = (m * NKV + g) * HS;
        if (h < NH) place_head(d, d.rotated + q, d.q + q, b.q_norm, position, between);
        else if (h < NH + NKV)
            place_head(d, d.n.keys_at(layer, r, g) + position * HS, d.k + kv, b.k_norm, position, between);
        else std::copy_n(d.v + kv, HS, d.n.values_at(layer, r, g) + position * HS);
    }
}

// Each query attends to all that its row has, or to a window of it.
void attend_cached(const Decoder& d, attention::ForwardHead<float>& head, int64_t layer, int64_t window) {
    int64_t T = d.n.T, NH = d.n.NH, HS = d.n.HS, group = NH / d.n.NKV, threads = omp_get_num_threads();
    auto attend_head = T == 1 ? attention::attend<float, 1> : attention::attend<float, TILE_ROWS>;
    attention::Options<float> options;
    options.window = window;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < d.n.R * NH; item++) {
        int64_t r = item / NH, h = item % NH, then = std::min(item + threads, d.n.R * NH - 1);
        int64_t at = r * T * NH * HS + h * HS;
        attend_head(head, {d.attended + at, NH * HS}, nullptr, {d.rotated + at, NH * HS},
                    {d.n.keys_at(layer, r, h / group), HS}, {d.n.values_at(layer, r, h / group), HS}, T,
                    d.n.starts[r] + T, d.n.keys_at(layer, then / NH, then % NH / group), options);
    }
}

void decode_block(const Decoder& d, const Block& b, attention::ForwardHead<float>& head, int64_t layer,
                  float* between) {
    normalise(d, b.norm_1, d.n.T);
    project(d, d.a, b.q, d.q), project(d, d.a, b.k, d.k), project(d, d.a, b.v, d.v);
    place_heads(d, b, layer, between);
    attend_cached(d, head, layer, b.window);
    add_projected(d, d.attended, b.o);
    normalise(d, b.norm_2, d.n.T);
    project(d, d.a, b.gate, d.gate);
    stored_matmul(d.n.M(), d.a, b.up.weight, d.h, SwigluWithGate{{b.up.bias}, d.gate, d.inner});
    add_projected(d, d.h, b.down);
}

// logits (R, count, V): of the last `count` tokens of each row.
void decode_model(const Decoder& d, float* logits, int64_t count) {
    int64_t C = d.n.C, layers = d.blocks.size();
    Team team;
#pragma omp parallel if (C * d.inner * layers + C * d.head.N > 1 << 18)
    {
        KeptApart apart(team);
        attention::ForwardHead<float> head(d.n.T, d.n.longest(), d.n.HS);
        std::vector<float> between(d.n.HS);
#pragma omp for
        for (int64_t m = 0; m < d.n.M(); m++) embed(d.x + m * C, d.embedding, d.n.tokens[m]);
        for (int64_t layer = 0; layer < layers; layer++) decode_block(d, d.blocks[layer], head, layer, between.data());
        normalise(d, d.norm, count);
        stored_matmul(d.n.R * count, d.a, d.head, logits, NoEpilogue());
    }
}

Layer read_layer(WeightReader& reader, const char* name, int64_t K, int64_t N) {
    Weight weight = reader.matrix(name, K, N, true);
    return {weight, reader.vector_or_none(name, weight.N)};
}

Block read_block(WeightReader& reader, const Step& n, int64_t inner, int64_t window) {
    int64_t C = n.C, q = n.NH * n.HS, kv = n.NKV * n.HS;
    Block b;
    b.norm_1 = reader.vector("input_layernorm", C);
    b.q = read_layer(reader, "q_proj", C, q), b.k = read_layer(reader, "k_proj", C, kv);
    b.v = read_layer(reader, "v_proj", C, kv);
    b.q_norm = reader.vector_or_none("q_norm", n.HS), b.k_norm = reader.vector_or_none("k_norm", n.HS);
    b.o = read_layer(reader, "o_proj", q, C);
    b.norm_2 = reader.vector("post_attention_layernorm", C);
    b.gate = read_layer(reader, "gate_proj", C, inner), b.up = read_layer(reader, "up_proj", C, inner);
    b.down = read_layer(reader, "down_proj", inner, C);
    b.window = window ? window : attention::NO_WINDOW;
    return b;
}

// weights: the embedding; of each layer input_layernorm, then weight and bias of q, k and v, q_norm, k_norm, weight and
// bias of o, post_attention_layernorm, weight and bias of gate, up and down; the last norm, and the head. windows: (L).
Object decode_llama(const Array& tokens, const Array& starts, const Array& rows, const List& weights, const Array& keys,
                    const Array& values, double eps, int64_t count, const Array& cos, const Array& sin, int64_t n_head,
                    int64_t inner, const Array& windows) {
    if (n_head < 1 || inner < 1) fail("n_head and inner must be at least 1: got ", n_head, " and ", inner);
    Call call(tokens, starts, rows, keys, values, eps, count, n_head);
    WeightReader reader{weights, "the embedding, 18 tensors a layer (or None), the last norm, and the head"};
    Decoder d;
    d.embedding = reader.matrix("embed_tokens", ANY, ANY, true);
    int64_t C = call.n.C = d.embedding.K, M = call.n.M(), q = call.n.NH * call.n.HS, kv = call.n.NKV * call.n.HS;
    auto seen = ids("windows", windows, {call.layers}, attention::NO_WINDOW);
    for (int64_t layer = 0; layer < call.layers; layer++)
        d.blocks.push_back(read_block(reader, call.n, inner, seen[layer]));
    d.norm = reader.vector("norm", C);
    d.head = reader.matrix("lm_head", C, d.embedding.N, true);
    if (call.n.HS % 2) fail("keys must have heads of an even size: got ", call.n.HS);
    d.cos = input<float>("cos", cos, {call.n.S, call.n.HS / 2}), d.sin = input<float>("sin", sin, cos.shape);
    call.read_tokens(tokens, d.embedding.N);
    d.n = call.n, d.inner = inner;
    auto logits = fresh<float>({d.n.R, count, d.head.N});
    without_gil([&] {
        thread_local Scratch<float> scratch;
        d.x = scratch.at_least(M * (3 * C + 3 * q + 2 * kv + 2 * inner));
        d.a = d.x + M * C, d.sums = d.a + M * C, d.q = d.sums + M * C, d.rotated = d.q + M * q;
        d.attended = d.rotated + M * q, d.k = d.attended + M * q, d.v = d.k + M * kv;
        d.gate = d.v + M * kv, d.h = d.gate + M * inner;
        decode_model(d, logits, count);
    });
    return logits;
}

const Register registered(
    "decode_llama(tokens, starts, rows, weights, keys, values, eps, count, cos, sin, n_head, inner, windows)",
    &decode_llama);

}  // namespace minillm::decode_llama
