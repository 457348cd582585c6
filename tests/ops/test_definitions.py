"""Every op's forward is its definition, written out once more, one number at a time, from the paper, not from our file.

Gradient checks hold a backward to its forward, and kernels are held to the reference: a wrong formula in the reference
alone would pass both.
"""
from math import erf, exp, log, prod, sqrt, tanh

import numpy as np
import pytest
from cases import cases, named_outs, pair, precision, sample
from tolerances import assert_close

from minillm.ops.dropout import keep_mask
from minillm.ops.table import OPS, Dims


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def log_softmax(z, v):
    top = max(z)
    return float(z[v]) - top - log(sum(exp(x - top) for x in z))


def by_row(f, *arrays):
    """f of each row of arrays (..., n), stacked again."""
    lead = arrays[0].shape[:-1]
    rows = [f(*row) for row in zip(*(a.reshape(prod(lead), a.shape[-1]) for a in arrays))]
    return np.array(rows).reshape(*lead, -1)


def linear(x, weight, bias):
    return by_row(lambda row: [dot(row, column) + b for column, b in zip(weight.T, bias)], x)


def gelu(x):
    return np.vectorize(lambda v: 0.5 * v * (1 + tanh(sqrt(2 / np.pi) * (v + 0.044715 * v ** 3))))(x)


def gelu_exact(x):
    return np.vectorize(lambda v: v * (1 + erf(v / sqrt(2))) / 2)(x)


def layernorm(x, weight, bias, eps):
    def row(values):
        mean = sum(values) / len(values)
        spread = sqrt(sum((v - mean) ** 2 for v in values) / len(values) + eps)
        return [(v - mean) / spread * w + b for v, w, b in zip(values, weight, bias)]
    return by_row(row, x)


def rmsnorm(x, weight, eps):
    def row(values):
        root = sqrt(sum(v * v for v in values) / len(values) + eps)
        return [v / root * w for v, w in zip(values, weight)]
    return by_row(row, x)


def silu(x):
    return np.vectorize(lambda v: v / (1 + exp(-v)))(x)


def rope(x, cos, sin, interleaved):
    """Each pair as a complex number, times one of modulus 1."""
    half, out = cos.shape[1], np.array(x)
    for b, t, start in np.ndindex(x.shape[0], x.shape[1], x.shape[2] // (2 * half)):
        for i in range(half):
            first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
            a = complex(*x[b, t, 2 * half * start + np.array([first, second])]) * complex(cos[t, i], sin[t, i])
            out[b, t, 2 * half * start + first], out[b, t, 2 * half * start + second] = a.real, a.imag
    return out


def attention_of(q, k, v):
    """The newest queries of one head (T, HS), to keys and values (S, HS)."""
    def row(query, last):
        weights = [exp(dot(query, key) / sqrt(len(query))) for key in k[:last]]
        return sum(w * value for w, value in zip(weights, v)) / sum(weights)
    return np.array([row(query, len(k) - len(q) + t + 1) for t, query in enumerate(q)])


def attention(qkv, n_head):
    q, k, v = np.split(qkv, 3, axis=-1)
    heads = [np.split(part, n_head, axis=-1) for part in (q, k, v)]
    return np.stack([np.concatenate([attention_of(*(part[head][b] for part in heads)) for head in range(n_head)], -1)
                     for b in range(len(qkv))])


def grouped_attention(q, k, v, n_head, window, softcap):
    group = n_head * k.shape[-1] // q.shape[-1]
    group = n_head // group
    q, k, v = (np.split(x, x.shape[-1] // (q.shape[-1] // n_head), axis=-1) for x in (q, k, v))
    return np.stack([np.concatenate([attention_of(q[h][b], k[h // group][b], v[h // group][b])
                                     for h in range(n_head)], -1) for b in range(len(q[0]))])


def cross_entropy(logits, targets, ignore_index):
    return [0 if y == ignore_index else -log_softmax(z, y) for z, y in zip(logits, targets)]


def distillation_loss(logits, teacher, targets, temperature, weight, ignore_index):
    def row(z, u, y):
        if y == ignore_index:
            return 0
        soft = [(log_softmax(u / temperature, v), log_softmax(z / temperature, v)) for v in range(len(z))]
        kl = sum(exp(p) * (p - q) for p, q in soft)
        return (1 - weight) * -log_softmax(z, y) + weight * temperature ** 2 * kl
    return [row(*each) for each in zip(logits, teacher, targets)]


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing):
    def sigmoid(z):
        return 1 / (1 + exp(-z))
    gaps = beta * (chosen - rejected - ref_chosen + ref_rejected)
    return [-(1 - label_smoothing) * log(sigmoid(z)) - label_smoothing * log(sigmoid(-z)) for z in gaps]


def grpo_loss(logp, old_logp, ref_logp, advantages, clip, beta):
    def token(new, old, ref, advantage):
        ratio = exp(new - old)
        held = min(max(ratio, 1 - clip), 1 + clip)
        return -min(ratio * advantage, held * advantage) + beta * (exp(ref - new) - (ref - new) - 1)
    return [token(*each) for each in zip(logp, old_logp, ref_logp, advantages)]


def dropout(x, p, key):
    return [v / (1 - p) if keep else 0 for v, keep in zip(x.flat, keep_mask(x.size, p, key))]


def lora_mlp(x, *layers_and_numbers):
    fc, proj, (fc_scale, proj_scale, p, fc_key, proj_key) = (layers_and_numbers[place] for place in (
        slice(4), slice(4, 8), slice(8, None)))

    def layer(x, weight, bias, a, b, scale, key):
        return linear(x, weight, bias) + scale * np.reshape(dropout(x, p, key), x.shape) @ a @ b
    return layer(gelu(layer(x, *fc, fc_scale, fc_key)), *proj, proj_scale, proj_key)


DEFINITIONS = {
    "linear": linear, "gelu": gelu, "gelu_exact": gelu_exact,
    "layernorm": layernorm, "attention": attention, "cross_entropy": cross_entropy,
    "distillation_loss": distillation_loss, "dpo_loss": dpo_loss, "grpo_loss": grpo_loss,
    "dropout": lambda x, p, key: np.reshape(dropout(x, p, key), x.shape),
    "head": lambda x, wte: by_row(lambda row: [dot(row, token) for token in wte], x),
    "embedding": lambda tokens, wte, wpe, start=0: [[wte[id] + wpe[start + t] for t, id in enumerate(row)]
                                                    for row in tokens],
    "residual_layernorm": lambda x, y, weight, bias, eps: (x + y, layernorm(x + y, weight, bias, eps)),
    "rmsnorm": rmsnorm, "residual_rmsnorm": lambda x, y, weight, eps: (x + y, rmsnorm(x + y, weight, eps)),
    "token_embedding": lambda tokens, wte: [[wte[id] for id in row] for row in tokens],
    "rope": rope, "grouped_attention": grouped_attention,
    "projection": lambda x, weight, bias: linear(x, weight.T, bias), "swiglu": lambda gate, up: silu(gate) * up,
    "geglu": lambda gate, up: gelu(gate) * up,
    "softcap": lambda x, cap: np.vectorize(lambda v: cap * tanh(v / cap))(x),
    "relu": lambda x: np.vectorize(lambda v: v if v > 0 else 0.0)(x),
    "relu_squared": lambda x: np.vectorize(lambda v: v * v if v > 0 else 0.0)(x),
    "attention_decode": lambda q, k, v: np.stack([np.concatenate(list(map(attention_of, *heads)), -1)
                                                  for heads in zip(q, k, v)]),
    "mlp": lambda x, fc_weight, fc_bias, proj_weight, proj_bias: linear(
        gelu(linear(x, fc_weight, fc_bias)), proj_weight, proj_bias),
    "lora_linear": lambda x, weight, bias, a, b, scale, p, key: linear(x, weight, bias) + scale * (
        np.reshape(dropout(x, p, key), x.shape) @ a @ b),
    "lora_projection": lambda x, weight, bias, a, b, scale, p, key: linear(x, weight.T, bias) + scale * (
        np.reshape(dropout(x, p, key), x.shape) @ a.T @ b.T),
    "lora_mlp": lambda **args: lora_mlp(*args.values()),
    "linear_cross_entropy": lambda x, wte, targets, ignore_index: cross_entropy(
        np.array([[dot(row, token) for token in wte] for row in x]), targets, ignore_index)}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("op, backend, dtype", [case for case in cases(("pair", "decode"))
                                                if case.values[0] in DEFINITIONS and "cudasim" not in case.values[1]])
def test_forward_is_the_definition(op, backend, dtype, seed):
    args = sample(op, dtype, Dims(B=2, T=9, C=6, NH=2, V=7), seed)
    wide = {name: value.astype("float64") if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for name, value in args.items()}
    want = named_outs(DEFINITIONS[op](**wide))
    result = pair(op, backend)[0](**args)
    for name, array in named_outs(result[0] if OPS[op].kind == "pair" else result).items():
        assert_close(f"{op} {name}", array, want[name], f"reference {precision(backend, dtype)}")
