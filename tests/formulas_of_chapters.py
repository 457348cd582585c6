"""What the names in the displayed formulas of the book's chapters stand for, and what the package's functions give.

VALUES[formula]() is (values, expected), or several such pairs. A formula that is a docstring's needs none: those are
compared where they stand.
DEFINITIONS have no function beside them.
"""
import numpy as np
from formulas_of_rooms import (
    DOUT,
    X,
    advantages,
    clipping,
    differences,
    extrapolation,
    minhash,
    parameters,
    roofline,
    rounding,
    speedup,
    surprise,
    tempered,
    tokenizer_costs,
    wilson,
)
from small_models import model

from minillm.gradcheck import jacobian
from minillm.ops.attention import attention_forward, logsumexps, split_heads
from minillm.ops.lora_linear import lora_linear_forward
from minillm.ops.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward
from minillm.ops.losses.distillation_loss import distillation_loss_forward
from minillm.ops.losses.dpo_loss import dpo_loss_forward
from minillm.ops.losses.grpo_loss import grpo_loss_forward
from minillm.ops.optimizer.adamw import adamw_update
from minillm.ops.softmax import softmax_backward, softmax_forward
from minillm.ops.table import OPS, Dims
from minillm.study.book.figures.scaling_law import loss_of

DEFINITIONS = {
    "L = f3(f2(f1(x)))": "a composition of any functions",
    "hours = 6 * N * P / (3600 * MFU * peak)": "6 N P FLOPs at a share of the peak",
    "p_equal = s": "a theorem; tests/data/test_minhash.py measures it",
    "p(x) = product over t of p(x_t, past)": "the chain rule of probability",
    "loss = -1 / T * sum over t of log(p(x_t, past))": "the loss in terms of conditional probabilities",
    "loss = -1 / count * sum over t of learned[t] * log(p(x_t, past))": "the same over learned tokens",
    "H(story) = sum over i of H(c_i, past)": "the chain rule of entropy",
    "p(y) = ref_p(y) * exp(reward(y) / beta) / Z": "the optimum of another objective",
    "dJ = sum over y of p(y) * reward(y) * dlogp(y)": "the policy gradient of any policy"}


def first(pairs, rename=(), expected=()):
    """A room's values for a formula of other names: (new, old) pairs."""
    values, wanted = next(iter(pairs()))
    return values | {new: values[old] for new, old in rename}, {new: wanted[old] for new, old in expected}


def chain_rule():
    slopes = jacobian(softmax_forward, {"x": X}, "x")
    dx = softmax_backward(DOUT, softmax_forward(X)[1])
    return {"dout": DOUT, "dout/dx": slopes, "x": X}, {"dx": dx}


def softmax():
    p, cache = softmax_forward(X)
    return {"p": p, "dp": DOUT}, {"dz": softmax_backward(DOUT, cache)}


def cross_entropy():
    logits = X[None]
    dz = cross_entropy_backward(np.ones(1), cross_entropy_forward(logits, np.array([1]))[1])[0]
    return {"p": softmax_forward(X)[0], "y": 1}, {"dz": dz}


def six_n_p():
    """A linear layer: P rows, and as many parameters as its matrix has."""
    d = Dims(B=2, T=5, C=8)
    return {"N": 8 * 32, "P": 10}, {"FLOPs": sum(OPS["linear"].flops(d))}


def heads():
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((1, 6, 12))
    out, (_, _, P) = attention_forward(qkv, 1)
    q, k, v = (part[0, 0] for part in split_heads(qkv, 1))
    return out[0], P[0, 0], q, k, v, logsumexps(qkv, 1)[0, 0]


def online(name):
    """The last row of scores, its first four done: l and out of all six are what attention divides and gives."""
    out, P, q, k, v, logsum = heads()
    scores = k @ q[-1] / 2
    seen, S = scores[:4], scores[4:]
    m, n = seen.max(), scores.max()
    l = np.exp(logsum[-1] - n)
    values = {"m": m, "n": n, "S": S, "l": np.exp(seen - m).sum(), "out": np.exp(seen - m) @ v[:4], "v": v[4:]}
    if name == "n":
        del values["n"]
    return values, {name: {"n": n, "l": l, "out": out[-1] * l}[name]}


def flash():
    out, P, _, _, v, _ = heads()
    dout = np.random.default_rng(1).standard_normal(out.shape)
    return {"P": P, "dP": dout @ v.T, "dout": dout, "out": out, "t": 3}, {}


def row_of_probabilities():
    out, P, q, k, v, _ = heads()
    return {"S": k @ q[-1] / 2, "P": P, "v": v}, {"P": P[-1]}


def mixed_values():
    out, P, _, _, v, _ = heads()
    return {"P": P, "v": v}, {"out": out}


def paired():
    a, b = np.random.default_rng(0).standard_normal((2, 9))
    cov = np.cov(a, b, bias=True)
    return {"var_a": cov[0, 0], "var_b": cov[1, 1], "cov": cov[0, 1], "n": 9}, {"var": np.var(a - b) / 9}


def wilson_root():
    """At the ends of the interval the observed share is just as far off as z allows."""
    values, ends = next(iter(wilson()))
    return {"share": values["p"], "s": ends["low"], "z": values["z"], "n": values["n"]}, {}


def lora():
    rng = np.random.default_rng(0)
    x, weight, bias, a, b = (rng.standard_normal(shape) for shape in ((5, 4), (4, 3), (3,), (4, 2), (2, 3)))
    values = {"x": x, "weight": weight, "bias": bias, "a": a, "b": b, "scale": 0.7}
    return values, {"out": lora_linear_forward(**values)[0]}


def dpo():
    h = np.array([0.4])
    return {"h": 0.4, "beta": 0.3}, {"loss": dpo_loss_forward(h, 0 * h, 0 * h, 0 * h, beta=0.3)[0][0]}


def grpo():
    logp, old, ref, A = np.random.default_rng(0).standard_normal((4, 30)) / 2
    back = ref - logp
    return ({"r": np.exp(logp - old), "A": A, "eps": 0.2, "beta": 0.04, "kl": np.exp(back) - back - 1},
            {"loss": grpo_loss_forward(logp, old, ref, A)[0]})


def decay():
    w, zero = np.array([0.5, -2.0]), np.zeros(2)
    after = w.copy()
    adamw_update(after, zero, zero.copy(), zero.copy(), 1, 0.1, weight_decay=0.3, n_decayed=2)
    return {"w": w, "lr": 0.1, "weight_decay": 0.3}, {"w": after}


def clipped():
    g = np.array([0.6, 0.8])
    return [({"g": g * values["norm"], "clip": values["max_norm"]}, {"g": g * values["norm"] * wanted["scale"]})
            for values, wanted in clipping()]


def divergence():
    """The targets drawn from q: cross-entropy weighted by it; the teacher's logits are log q."""
    q, p = softmax_forward(np.array([X, DOUT]))[0]
    target = np.zeros(1, np.int64)

    def entropy(*distributions):
        losses = cross_entropy_forward(np.log(distributions[-1])[None].repeat(3, 0), np.arange(3))[0]
        return distributions[0] @ losses

    def kl(q, p):
        return distillation_loss_forward(np.log(p)[None], np.log(q)[None], target, weight=1.0)[0][0]
    return {"q": q, "p": p, "H": entropy, "KL": kl}, {}


def central():
    values, wanted = next(extrapolation())
    h, slope = values["h"], values["predicted"](1)
    return {"L": values["L"], "x": 0}, {"d": ((h,), wanted["centre"][1] + slope)}


def richardson():
    values, wanted = next(extrapolation())
    loss, slope = values["L"], values["predicted"](1)
    return {"h": values["h"], "d": lambda h: (loss(h) - loss(-h)) / (2 * h) - slope}, {"R": wanted["R"]}


def mean_loss():
    gpt, tokens = model(), np.array([[5, 9, 2, 7]])
    targets = np.array([[9, 2, 7, 1]])
    losses = gpt.losses(tokens, targets)[0]
    return {"losses": losses, "count": len(losses)}, {"loss": gpt.loss_and_grads(tokens, targets)[0]}


def logits():
    """The rows that the last LayerNorm reads, from the model's own cache."""
    gpt, tokens = model(), np.array([[5, 9, 2, 7]])
    hidden = gpt.hidden(tokens)[0][0]
    return ({"x": 0, "layernorm": lambda x: hidden, "wte": gpt.params["wte.weight"]},
            {"logits": gpt.decode(tokens, gpt.new_cache(1))[0]})


def attention_share():
    return {"T": 1024, "C": 768}, {}


VALUES = {
    "dx[i] = sum over j of dout[j] * dout[j]/dx[i]": chain_rule,
    "dz = p * (dp - sum(dp * p))": softmax,
    "dz[v] = p[v] - 1[v = y]": cross_entropy,
    "FLOPs = 6 * N * P": six_n_p,
    "loss = E + A / N^alpha + B / P^beta": lambda: (
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28, "N": 1e6, "P": 2e7},
        {"loss": loss_of(1e6, 2e7)}),
    "time = max(F / peak, M / bandwidth)": lambda: first(
        roofline, [("F", "flops"), ("M", "bytes")], [("time", "floor")]),
    "n = max(m, max(S))": lambda: online("n"),
    "l = l * exp(m - n) + sum(exp(S - n))": lambda: online("l"),
    "out = out * exp(m - n) + exp(S - n) @ v": lambda: online("out"),
    "sum over s of dP[t, s] * P[t, s] = dout[t] . out[t]": flash,
    "p_found = 1 - (1 - s^r)^b": lambda: first(minhash, expected=[("p_found", "found")]),
    "p[v] = exp(z[v] / T) / sum over w of exp(z[w] / T)": lambda: first(tempered, expected=[("p", "p")]),
    "speedup = (1 - alpha^(k + 1)) / ((1 - alpha) * (k * c + 1))": lambda: first(
        speedup, [("alpha", "a"), ("c", "cost")], [("speedup", "speedup")]),
    "|share - s| = z * sqrt(s * (1 - s) / n)": wilson_root,
    "var = (var_a + var_b - 2 * cov) / n": paired,
    "d(h) = (L(x + h) - L(x - h)) / (2 * h)": central,
    "R = (16 * d(h/4) - d(h)) / 15": richardson,
    "dL/dx = Im(L(x + i * h)) / h": lambda: (
        next(differences())[0] | {"h": 1e-30}, next(differences())[1]),
    "gamma = n * u / (1 - n * u)": lambda: (
        next(rounding())[0] | {"n": 1000}, {"gamma": next(rounding())[1]["gamma"][1]}),
    "H(q, p) = H(q) + KL(q || p)": divergence,
    "perplexity = exp(loss)": lambda: (
        {"loss": next(surprise())[0]["nats"] / next(surprise())[0]["tokens"]}, {
            "perplexity": next(surprise())[1]["perplexity"]}),
    "bpb = nats / (log(2) * bytes)": lambda: first(surprise, expected=[("bpb", "bits_per_byte")]),
    "out = x @ weight + bias + scale * (x @ a) @ b": lora,
    "loss = -log(sigmoid(beta * h))": dpo,
    "A = (reward - mean(reward)) / (std(reward) + eps)": lambda: first(
        advantages, [("reward", "R"), ("eps", "small")], [("A", "A")]),
    "loss = -min(r * A, clip(r, 1 - eps, 1 + eps) * A) + beta * kl": grpo,
    "FLOPs_byte = 2 * (12 * L * C^2 + C * V) / bytes_token": lambda: first(
        tokenizer_costs, [("L", "n_layer"), ("C", "n_embd"), ("V", "vocab_size"), ("bytes_token", "bytes_per_token")],
        [("FLOPs_byte", "flops_per_byte")]),
    "w = w - lr * weight_decay * w": decay,
    "g = g * min(1, clip / norm(g))": clipped,
    "loss = 1 / count * sum over n of losses[n]": mean_loss,
    "logits = layernorm(x) @ wte.T": logits,
    "P = softmax(S)": row_of_probabilities,
    "out[t] = sum over s of P[t, s] * v[s]": mixed_values,
    "N = (V + T) * C + L * (12 * C^2 + 13 * C) + 2 * C": lambda: first(parameters, expected=[("N", "parameters")]),
    "2 * T * C / (24 * C^2) = T / (12 * C)": attention_share}
