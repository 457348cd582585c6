"""The whole algorithm on a few pages: a GPT-2, its gradients by hand, AdamW, training and sampling, in NumPy alone.

    python -m minillm.micro FILE        trains on a text file and writes a text of its own

A layer is a pair of functions: NAME_forward returns its output and a cache; NAME_backward takes dout, the gradient of
the loss at that output, and the cache, and returns the gradients at the inputs. The model calls the forwards in order,
then the backwards in reverse: that is all of backpropagation. The rest of the package does the same in C++, for large
models; a test holds the two equal. B sequences of T tokens, C channels, NH heads of HS channels, V tokens in all.
"""
import argparse
import math
from collections import namedtuple
from pathlib import Path

import numpy as np

# The size of a model; block_size is the longest sequence that it reads. Every byte is a token, so there are 256.
Shape = namedtuple("Shape", "n_layer n_head n_embd block_size vocab_size", defaults=(4, 4, 128, 64, 256))


def encode(text):                           # the tokenizer: a text is its bytes in UTF-8
    return np.array(list(text.encode("utf-8")), np.int64)


def decode(tokens):
    return bytes(list(tokens)).decode("utf-8", errors="replace")


# ---- The layers, each backward below its forward -------------------------------------------------------------------

def rows(x):
    return x.reshape(-1, x.shape[-1])       # (..., C) -> (N, C)


def embedding_forward(tokens, wte, wpe):
    """A vector for each token plus one for its position: tokens (B, T), wte (V, C), wpe (T or more, C) -> (B, T, C)."""
    return wte[tokens] + wpe[:tokens.shape[1]], (tokens, wte, wpe)


def embedding_backward(dout, cache):
    tokens, wte, wpe = cache
    dwte, dwpe = np.zeros_like(wte), np.zeros_like(wpe)
    np.add.at(dwte, tokens, dout)                       # a token that stands there twice gets both gradients
    dwpe[:tokens.shape[1]] = dout.sum(axis=0)
    return dwte, dwpe


def layernorm_forward(x, weight, bias, eps=1e-5):
    """out = xhat * weight + bias, where xhat is x brought to mean 0 and variance 1 along its last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = ((centred * centred).mean(axis=-1, keepdims=True) + eps) ** -0.5
    xhat = centred * rstd
    return xhat * weight + bias, (xhat, rstd, weight)


def layernorm_backward(dout, cache):
    """dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), where g = dout * weight."""
    xhat, rstd, weight = cache
    g = dout * weight
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    return dx, rows(dout * xhat).sum(axis=0), rows(dout).sum(axis=0)


def linear_forward(x, weight, bias):
    """out = x @ weight + bias: x (..., I), weight (I, J), bias (J) -> (..., J)."""
    return x @ weight + bias, (x, weight)


def linear_backward(dout, cache):
    """dx = dout @ weight.T, dweight = x.T @ dout, dbias = sum of dout over the rows."""
    x, weight = cache
    return dout @ weight.T, rows(x).T @ rows(dout), rows(dout).sum(axis=0)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_forward(qkv, n_head):
    """out = P @ v, P = softmax(S), S = q @ k.T / sqrt(HS), in every head: qkv (B, T, 3C) -> (B, T, C)."""
    B, T, C3 = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, n_head, -1).transpose(2, 0, 3, 1, 4)         # each (B, NH, T, HS)
    S = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])                         # (B, NH, T, T)
    P = softmax(np.where(np.tri(T, dtype=bool), S, -np.inf))                    # a token sees none after it
    return (P @ v).swapaxes(1, 2).reshape(B, T, C3 // 3), (q, k, v, P)


def attention_backward(dout, cache):
    """dv = P.T @ dout, dP = dout @ v.T, dS = P * (dP - sum(dP * P)), and S is linear in q and in k."""
    q, k, v, P = cache
    B, NH, T, HS = q.shape
    dout = dout.reshape(B, T, NH, HS).swapaxes(1, 2)
    dv, dP = P.swapaxes(-1, -2) @ dout, dout @ v.swapaxes(-1, -2)
    dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True)) / math.sqrt(HS)
    dq, dk = dS @ k, dS.swapaxes(-1, -2) @ q
    return np.stack([dq, dk, dv]).transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * NH * HS)


def gelu_forward(x, k=(2 / math.pi) ** 0.5, a=0.044715):
    """out = x * (1 + tanh(k * (x + a * x^3))) / 2: near 0 for x far below 0, near x far above."""
    t = np.tanh(k * (x + a * x * x * x))
    return 0.5 * x * (1 + t), (x, t, k, a)


def gelu_backward(dout, cache):
    """The product rule, with tanh' = 1 - tanh^2."""
    x, t, k, a = cache
    return dout * 0.5 * (1 + t + x * (1 - t * t) * k * (1 + 3 * a * x * x))


def cross_entropy(logits, targets):
    """The turning point: loss = mean of -log p[target] with p = softmax(logits); dlogits = (p - 1[v = target]) / N."""
    z = rows(logits) - rows(logits).max(axis=-1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    right = np.arange(targets.size), targets.ravel()
    dlogits = np.exp(logp)
    dlogits[right] -= 1
    return -logp[right].mean(), dlogits.reshape(logits.shape) / targets.size


# ---- The model: {layer: [weight, bias]}, by the names of Hugging Face ----------------------------------------------

def initialise(shape, seed=0, dtype=np.float32):
    """Weights are normal, those that add to the residual stream smaller for its length; LayerNorms do nothing yet."""
    rng, C = np.random.default_rng(seed), shape.n_embd
    p = {"embedding": [rng.normal(0, 0.02, (size, C)) for size in (shape.vocab_size, shape.block_size)]}
    for h in [f"h.{i}." for i in range(shape.n_layer)]:
        for name, size in (("attn.c_attn", (C, 3 * C)), ("attn.c_proj", (C, C)),
                           ("mlp.c_fc", (C, 4 * C)), ("mlp.c_proj", (4 * C, C))):
            deviation = 0.02 / math.sqrt(2 * shape.n_layer) if name.endswith("c_proj") else 0.02
            p[h + name] = [rng.normal(0, deviation, size), np.zeros(size[1])]
        p |= {h + name: [np.ones(C), np.zeros(C)] for name in ("ln_1", "ln_2")}
    p["ln_f"] = [np.ones(C), np.zeros(C)]
    return {name: [w.astype(dtype) for w in layer] for name, layer in p.items()}


def block_forward(x, p, h, n_head):
    """Attention, then an MLP: each reads a LayerNorm of the residual stream x (B, T, C) and adds its output to x."""
    a, ln_1 = layernorm_forward(x, *p[h + "ln_1"])
    a, c_attn = linear_forward(a, *p[h + "attn.c_attn"])
    a, attention = attention_forward(a, n_head)
    a, attn_proj = linear_forward(a, *p[h + "attn.c_proj"])
    x = x + a
    m, ln_2 = layernorm_forward(x, *p[h + "ln_2"])
    m, c_fc = linear_forward(m, *p[h + "mlp.c_fc"])
    m, gelu = gelu_forward(m)
    m, mlp_proj = linear_forward(m, *p[h + "mlp.c_proj"])
    return x + m, (ln_1, c_attn, attention, attn_proj, ln_2, c_fc, gelu, mlp_proj)


def block_backward(dx, caches, g, h):
    """block_forward, line by line in reverse. Two readers of x: their gradients add."""
    ln_1, c_attn, attention, attn_proj, ln_2, c_fc, gelu, mlp_proj = caches
    dm, *g[h + "mlp.c_proj"] = linear_backward(dx, mlp_proj)
    dm = gelu_backward(dm, gelu)
    dm, *g[h + "mlp.c_fc"] = linear_backward(dm, c_fc)
    dm, *g[h + "ln_2"] = layernorm_backward(dm, ln_2)
    dx = dx + dm
    da, *g[h + "attn.c_proj"] = linear_backward(dx, attn_proj)
    da = attention_backward(da, attention)
    da, *g[h + "attn.c_attn"] = linear_backward(da, c_attn)
    da, *g[h + "ln_1"] = layernorm_backward(da, ln_1)
    return dx + da


def forward(p, tokens, shape):
    """tokens (B, T) -> logits (B, T, V) of the token that follows each, and the caches."""
    x, embedding = embedding_forward(tokens, *p["embedding"])
    wte, blocks = p["embedding"][0], []
    for i in range(shape.n_layer):
        x, block = block_forward(x, p, f"h.{i}.", shape.n_head)
        blocks.append(block)
    x, ln_f = layernorm_forward(x, *p["ln_f"])
    return x @ wte.T, (embedding, blocks, ln_f, x, wte)         # the output head is wte again


def backward(dlogits, caches):
    """dlogits (B, T, V) -> the gradients, of the structure of the parameters."""
    embedding, blocks, ln_f, x, wte = caches
    g = {}
    dx, *g["ln_f"] = layernorm_backward(dlogits @ wte, ln_f)
    for i in reversed(range(len(blocks))):
        dx = block_backward(dx, blocks[i], g, f"h.{i}.")
    dwte, dwpe = embedding_backward(dx, embedding)
    return g | {"embedding": [dwte + rows(dlogits).T @ rows(x), dwpe]}         # wte is used twice: the gradients add


# ---- Training and sampling -----------------------------------------------------------------------------------------

def adamw(p, g, m, v, step, lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
    """A step, in place, along the running mean m of the gradients over the root of v, that of their squares."""
    for name in p:
        for w, dw, mw, vw in zip(p[name], g[name], m[name], v[name]):
            mw[:] = betas[0] * mw + (1 - betas[0]) * dw
            vw[:] = betas[1] * vw + (1 - betas[1]) * dw * dw
            mhat, vhat = mw / (1 - betas[0] ** step), vw / (1 - betas[1] ** step)       # both began at 0
            w *= 1 - lr * weight_decay * (w.ndim == 2)                                  # matrices alone decay
            w -= lr * mhat / (np.sqrt(vhat) + eps)


def batch(tokens, shape, rng, B=12):
    """B random stretches of the text; the targets are the same stretches, one token further on."""
    places = rng.integers(0, len(tokens) - shape.block_size, (B, 1)) + np.arange(shape.block_size)
    return tokens[places], tokens[places + 1]


def train(text, shape, steps, seed=0):
    """A model of the text, whose last tenth it does not see: the loss there says what it has learned."""
    tokens, rng, p = encode(text), np.random.default_rng(seed), initialise(shape, seed)
    seen, unseen = np.split(tokens, [len(tokens) * 9 // 10])
    if len(unseen) <= shape.block_size:
        raise ValueError(f"text must have at least {10 * shape.block_size + 10} bytes: got {len(tokens)}")
    m, v = ({name: [np.zeros_like(w) for w in layer] for name, layer in p.items()} for _ in range(2))
    for step in range(1, steps + 1):
        x, targets = batch(seen, shape, rng)
        logits, caches = forward(p, x, shape)
        loss, dlogits = cross_entropy(logits, targets)
        slope = min(step / 50, 0.55 + 0.45 * math.cos(math.pi * step / steps))      # warm-up, then a cosine to a tenth
        adamw(p, backward(dlogits, caches), m, v, step, 2e-3 * slope)
        if step % 100 == 0 or step in (1, steps):
            x, targets = batch(unseen, shape, np.random.default_rng(0), 64)
            bits = cross_entropy(forward(p, x, shape)[0], targets)[0] / math.log(2)
            print(f"step {step} of {steps}: loss {loss:.3f}, on unseen text {bits:.3f} bits per byte", flush=True)
    return p


def generate(p, tokens, count, shape, temperature=0.8, seed=0):
    """The tokens and `count` more, each drawn from softmax(logits / temperature); at 0, each the likeliest."""
    tokens, rng = list(tokens), np.random.default_rng(seed)
    start = max(0, len(tokens) - shape.block_size)
    for _ in range(count):
        logits = forward(p, np.array([tokens[start:]]), shape)[0][0, -1].astype(np.float64)
        token = rng.choice(len(logits), p=softmax(logits / temperature)) if temperature else logits.argmax()
        tokens.append(int(token))
        if len(tokens) - start > shape.block_size:
            start = len(tokens) - max(1, shape.block_size // 2)     # full: it goes on with the newer half
    return tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small GPT on a text and let it write.")
    parser.add_argument("file", type=Path, help="a text in UTF-8, best of a megabyte or more")
    parser.add_argument("--steps", type=int, default=2000, help="of training (default: %(default)s)")
    args = parser.parse_args()
    try:
        text = args.file.read_text(encoding="utf-8")
        print(decode(generate(train(text, Shape(), args.steps), encode(text[:16]), 400, Shape())))
    except (OSError, ValueError) as error:
        parser.error(str(error))
