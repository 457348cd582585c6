// A step of decoding with a KV cache, a whole Llama in one call: Llama.decode, line for line, for few tokens. decode.cpp is
// the same for GPT-2, and says why it exists.
//
//   x = embedding[tokens]
//   for each block:  q, k, v = projections of norm(x);  q, k rotated (and normalised before, each head)
//                    x += o(attention(q, cache))        n = norm(x);  x += down(silu(gate(n)) * up(n))
//   logits = norm(x) @ head.T
//
// OLMo 2 normalises what it adds to x, not what it reads, and all heads of q and of k as one; Gemma scales the embedding,
// counts the gain of a norm from 1 and has GELU for silu; Gemma 2 has norms on both sides, and soft-caps the scores.
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

struct Block {  // its norms are null where a family has none
    const float *before_1, *after_1, *before_2, *after_2;  // attention's input and output, the MLP's
    Layer q, k, v;
    const float *q_norm, *k_norm;  // of a head, or of all
    Layer o, gate, up, down;
    int64_t window;
};

struct Traits {
    bool geglu, from_one, whole_norms;
    float embedding_scale, softcap;
};

struct Decoder {
    Step n;
    Traits has;
    int64_t inner;
    Weight embedding, head;
    std::vector<Block> blocks;
    std::vector<std::vector<float>> gains;  // 1 + w, of norms that count from 1
    const float *norm, *cos, *sin, *q_cos, *q_sin;  // angles: (S, HS / 2), those of queries perhaps with a scale
    float *x, *a, *sums;  // (M, C); sums (M, C): of products that are added to x
    float *q, *rotated, *attended;  // (M, NH * HS)
    float *k, *v;  // (M, NKV * HS)
    float *gate, *h;  // (M, inner)
};

// silu(gate) * (v + bias), or gelu(gate) * (v + bias)
struct TimesGate {
    MaybeBias add_bias;
    const float* gate;
    int64_t inner;
    bool geglu;
    Vec<float> operator()(Vec<float> v, int64_t row, int64_t column, int64_t n) const {
        Vec<float> g = load_part(gate + row * inner + column, n);
        return (geglu ? vgelu<float>(g) : vsilu<float>(g)) * add_bias(v, row, column, n);
    }
};

void project(const Decoder& d, const float* a, const Layer& layer, float* out) {
    stored_matmul(d.n.M(), a, layer.weight, out, MaybeBias{layer.bias});
}

// x += layer(a), or its norm; d.a is overwritten.
void add_projected(const Decoder& d, const float* a, const Layer& layer, const float* norm) {
    int64_t M = d.n.M(), C = d.n.C;
    if (!norm) return stored_matmul(M, a, layer.weight, d.sums, AddToResidual{{layer.bias}, d.x, C});
    stored_matmul(M, a, layer.weight, d.sums, MaybeBias{layer.bias});
#pragma omp for
    for (int64_t m = 0; m < M; m++) {
        rmsnorm::forward_row(d.a + m * C, d.sums + m * C, norm, d.n.eps, C);
        for (int64_t i = m * C; i < (m + 1) * C; i++) d.x[i] += d.a[i];
    }
}

// The last `count` tokens of each row of x, normalised, become the rows of a.
void normalise(const Decoder& d, const float* weight, int64_t count) {
    int64_t C = d.n.C, T = d.n.T;
#pragma omp for
    for (int64_t i = 0; i < d.n.R * count; i++)
        rmsnorm::forward_row(d.a + i * C, d.x + (i / count * T + T - count + i % count) * C, weight, d.n.eps, C);
}

// What a sublayer reads: the norm of x, or x itself.
const float* read_by_sublayer(const Decoder& d, const float* norm) {
    if (norm) normalise(d, norm, d.n.T);
    return norm ? d.a : d.x;
}

// All heads of a token as one, in place.
void normalise_whole(const Decoder& d, const Block& b) {
    int64_t q = d.n.NH * d.n.HS, kv = d.n.NKV * d.n.HS;
#pragma omp for
    for (int64_t m = 0; m < d.n.M(); m++) {
        rmsnorm::forward_row(d.q + m * q, d.q + m * q, b.q_norm, d.n.eps, q);
        rmsnorm::forward_row(d.k + m * kv, d.k + m * kv, b.k_norm, d.n.eps, kv);
    }
}

// A head, normalised where there is a weight, and rotated to its position.
void place_head(const Decoder& d, float* out, const float* x, const float* norm, const float* cos, const float* sin,
                float* between) {
    int64_t HS = d.n.HS, half = HS / 2;
    if (norm && !d.has.whole_norms) rmsnorm::forward_row(between, x, norm, d.n.eps, HS), x = between;
    rope::rotate_head(out, x, cos, sin, 1.0f, half, half, 1);
}

// Queries are rotated; keys go to the cache, rotated, and values as they are. between: (2, HS) of the thread's.
void place_heads(const Decoder& d, const Block& b, int64_t layer, float* between) {
    int64_t NH = d.n.NH, NKV = d.n.NKV, HS = d.n.HS, heads = NH + 2 * NKV;
#pragma omp for
    for (int64_t item = 0; item < d.n.M() * heads; item++) {
        int64_t m = item / heads, h = item % heads, r = m / d.n.T, position = d.n.starts[r] + m % d.n.T;
        int64_t q = (m * NH + h) * HS, g = std::max<int64_t>(0, h - NH) % NKV, kv = (m * NKV + g) * HS;
        int64_t at = d.n.head_at(layer, r, g) + position, angle = position * (HS / 2);
        if (h < NH) place_head(d, d.rotated + q, d.q + q, b.q_norm, d.q_cos + angle, d.q_sin + angle, between);
        else if (h < NH + NKV) {
            place_head(d, between + HS, d.k + kv, b.k_norm, d.cos + angle, d.sin + angle, between);
            d.n.keys.put(at, between + HS);
        } else d.n.values.put(at, d.v + kv);
    }
}

// Each query attends to all that its row has, or to a window of it.
void attend_cached(const Decoder& d, Attending& memory, int64_t layer, int64_t window) {
    int64_t T = d.n.T, NH = d.n.NH, HS = d.n.HS, group = NH / d.n.NKV, threads = omp_get_num_threads();
    auto attend_head = T == 1 ? attention::attend<float, 1> : attention::attend<float, TILE_ROWS>;
    attention::Options<float> options;
    options.window = window, options.cap = d.has.softcap;
    int64_t together = d.n.keys.floats ? 1 : std::min(group, (d.n.R * NH + threads - 1) / threads);
#pragma omp for schedule(dynamic, together)
    for (int64_t item = 0; item < d.n.R * NH; item++) {
        int64_t r = item / NH, h = item % NH, then = std::min(item + threads, d.n.R * NH - 1);
        int64_t at = r * T * NH * HS + h * HS;
        auto seen = memory.rows(d.n, layer, r, h / group, window);
        attend_head(memory.head, {d.attended + at, NH * HS}, nullptr, {d.rotated + at, NH * HS}, seen.k, seen.v, T,
                    d.n.starts[r] + T, memory.next(d.n, d.n.head_at(layer, then / NH, then % NH / group)), options);
    }
}

void decode_block(const Decoder& d, const Block& b, Attending& memory, int64_t layer, float* between) {
    const float* n = read_by_sublayer(d, b.before_1);
    project(d, n, b.q, d.q), project(d, n, b.k, d.k), project(d, n, b.v, d.v);
    if (d.has.whole_norms) normalise_whole(d, b);
    place_heads(d, b, layer, between);
    attend_cached(d, memory, layer, b.window);
    add_projected(d, d.attended, b.o, b.after_1);
    n = read_by_sublayer(d, b.before_2);
    project(d, n, b.gate, d.gate);
    stored_matmul(d.n.M(), n, b.up.weight, d.h, TimesGate{{b.up.bias}, d.gate, d.inner, d.has.geglu});
    add_projected(d, d.h, b.down, b.after_2);
}

void embed_scaled(const Decoder& d, int64_t m) {
    float* x = d.x + m * d.n.C;
    embed(x, d.embedding, d.n.tokens[m]);
    if (d.has.embedding_scale != 1)
        for (int64_t i = 0; i < d.n.C; i++) x[i] *= d.has.embedding_scale;
}

// logits (R, count, V): of the last `count` tokens of each row.
void decode_model(const Decoder& d, float* logits, int64_t count) {
    int64_t C = d.n.C, layers = d.blocks.size();
#pragma omp parallel if (C * d.inner * layers + C * d.head.N > 1 << 18)
    {
        Attending memory(d.n);
        std::vector<float> between(2 * d.n.HS);
#pragma omp for
        for (int64_t m = 0; m < d.n.M(); m++) embed_scaled(d, m);
        for (int64_t layer = 0; layer < layers; layer++)
            decode_block(d, d.blocks[layer], memory, layer, between.data());
        normalise(d, d.norm, count);
        stored_matmul(d.n.R * count, d.a, d.head, logits, NoEpilogue());
    }
}

Layer read_layer(WeightReader& reader, const char* name, int64_t K, int64_t N) {
    Weight weight = reader.matrix(name, K, N, true);
    return {weight, reader.vector_or_none(name, weight.N)};
}

const float* read_norm(WeightReader& reader, const char* name, Decoder& d) {
    const float* weight = reader.vector_or_none(name, d.n.C);
    if (!weight || !d.has.from_one) return weight;
    d.gains.emplace_back(weight, weight + d.n.C);
    for (float& gain : d.gains.back()) gain = 1 + gain;
    return d.gains.back().data();
}

Block read_block(WeightReader& reader, Decoder& d, int64_t window) {
    int64_t C = d.n.C, q = d.n.NH * d.n.HS, kv = d.n.NKV * d.n.HS, inner = d.inner;
    bool whole = d.has.whole_norms;
    Block b;
    b.before_1 = read_norm(reader, "input_layernorm", d);
    b.q = read_layer(reader, "q_proj", C, q), b.k = read_layer(reader, "k_proj", C, kv);
    b.v = read_layer(reader, "v_proj", C, kv);
    b.q_norm = whole ? reader.vector("q_norm", q) : reader.vector_or_none("q_norm", d.n.HS);
    b.k_norm = whole ? reader.vector("k_norm", kv) : reader.vector_or_none("k_norm", d.n.HS);
    b.o = read_layer(reader, "o_proj", q, C);
    b.after_1 = read_norm(reader, "the norm of attention's output", d);
    b.before_2 = read_norm(reader, "the norm of the MLP's input", d);
    b.gate = read_layer(reader, "gate_proj", C, inner), b.up = read_layer(reader, "up_proj", C, inner);
    b.down = read_layer(reader, "down_proj", inner, C);
    b.after_2 = read_norm(reader, "the norm of the MLP's output", d);
    b.window = window ? window : attention::NO_WINDOW;
    return b;
}

// weights: the embedding; of each layer the norm of attention's input, then weight and bias of q, k and v, q_norm, k_norm,
// weight and bias of o, the norms of attention's output and of the MLP's input, weight and bias of gate, up and down, the
// norm of the MLP's output; the last norm, and the head. windows: (L). query_angles: (cos, sin) other than those of keys.
Object decode_llama(const Array& tokens, const Array& starts, const Array& rows, const List& weights, const Array& keys,
                    const Array& values, double eps, int64_t count, const Array& cos, const Array& sin, int64_t n_head,
                    int64_t inner, const Array& windows, bool integers, const Object& key_scales,
                    const Object& value_scales, const Object& query_angles, bool geglu, bool from_one, bool whole_norms,
                    double embedding_scale, double softcap) {
    if (n_head < 1 || inner < 1) fail("n_head and inner must be at least 1: got ", n_head, " and ", inner);
    Call call(tokens, starts, rows, keys, values, key_scales, value_scales, eps, count, n_head);
    WeightReader reader{weights, "the embedding, 20 tensors a layer (or None), the last norm, and the head", integers};
    if (!(softcap >= 0 && softcap < INFINITY)) fail("softcap must be a number of at least 0: got ", softcap);
    Decoder d;
    d.embedding = reader.matrix("embed_tokens", ANY, ANY, true);
    int64_t C = call.n.C = d.embedding.K, M = call.n.M(), q = call.n.NH * call.n.HS, kv = call.n.NKV * call.n.HS;
    auto seen = ids("windows", windows, {call.layers}, attention::NO_WINDOW);
    d.n = call.n, d.inner = inner;
    d.has = {geglu, from_one, whole_norms, float(embedding_scale), float(softcap)};
    for (int64_t layer = 0; layer < call.layers; layer++) d.blocks.push_back(read_block(reader, d, seen[layer]));
    d.norm = read_norm(reader, "norm", d);
    if (!d.norm) fail("norm must be an array");
    d.head = reader.matrix("lm_head", C, d.embedding.N, true);
    if (call.n.HS % 2) fail("keys must have heads of an even size: got ", call.n.HS);
    d.cos = input<float>("cos", cos, {call.n.S, call.n.HS / 2}), d.sin = input<float>("sin", sin, cos.shape);
    d.q_cos = d.cos, d.q_sin = d.sin;
    if (!query_angles.is_none()) {
        Tuple angles = argument<Tuple>(query_angles, "query_angles");
        d.q_cos = input<float>("query_angles", cached(angles, 0), cos.shape);
        d.q_sin = input<float>("query_angles", cached(angles, 1), cos.shape);
    }
    call.read_tokens(tokens, d.embedding.N);
    d.n = call.n;
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
    "decode_llama(tokens, starts, rows, weights, keys, values, eps, count, cos, sin, n_head, inner, windows, "
    "integers=False, key_scales=None, value_scales=None, query_angles=None, geglu=False, from_one=False, "
    "whole_norms=False, embedding_scale=1.0, softcap=0.0)",
    &decode_llama);

}  // namespace minillm::decode_llama
