"""Right solutions of the first half that are written otherwise than the reference pass: loops, einsum, Jacobians."""
import pytest

from minillm.study.learn.path import exercise_called
from tests.study.learn.judging import judged

RIGHT = {
    "linear_forward": """
def linear_forward(x, weight, bias):
    return np.einsum("...i,ij->...j", x, weight) + bias, None
""",
    "linear_backward": """
def linear_forward(x, weight, bias):
    return np.tensordot(x, weight, 1) + bias, {"input": x, "w": weight}
def linear_backward(dout, cache):
    x, w = cache["input"], cache["w"]
    axes = tuple(range(dout.ndim - 1))
    return [np.einsum("...j,ij->...i", dout, w), np.tensordot(x, dout, (axes, axes)), dout.sum(axes)]
""",
    "gelu": """
def gelu_forward(x):
    s = 1 / (1 + np.exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)))
    return x * s, (x, s)
def gelu_backward(dout, cache):
    x, s = cache
    return dout * (s + x * s * (1 - s) * 2 * 0.7978845608028654 * (1 + 0.134145 * x * x))
""",
    "residual": """
def residual_forward(x, y):
    return np.add(x, y), None
def residual_backward(dout, cache):
    return dout, dout
""",
    "embedding": """
def embedding_forward(tokens, wte, wpe, start):
    out = np.stack([np.stack([wte[v] + wpe[start + t] for t, v in enumerate(row)]) for row in tokens])
    return out, (tokens, wte.shape, wpe.shape, start)
def embedding_backward(dout, cache):
    tokens, shape, places, start = cache
    one_hot = (tokens.reshape(-1, 1) == np.arange(shape[0])).astype(dout.dtype)
    dwpe = np.zeros(places, dout.dtype)
    for t in range(tokens.shape[1]):
        dwpe[start + t] = dout[:, t].sum(0)
    return one_hot.T @ dout.reshape(-1, shape[1]), dwpe
""",
    "softmax": """
def softmax_forward(x):
    top = np.max(x, -1)[..., None]
    p = np.exp(x - (top + np.log(np.sum(np.exp(x - top), -1))[..., None]))
    return p, p.copy()
def softmax_backward(dout, p):
    jacobian = p[..., :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])
    return (dout[..., None, :] @ jacobian)[..., 0, :]
""",
    "cross_entropy": """
def cross_entropy_forward(logits, targets, ignore_index):
    losses = np.zeros(len(logits), logits.dtype)
    for n, (z, y) in enumerate(zip(logits, targets)):
        if y != ignore_index:
            losses[n] = np.log(np.exp(z - z.max()).sum()) + z.max() - z[y]
    return losses, (logits, targets, ignore_index)
def cross_entropy_backward(dout, cache):
    logits, targets, ignore_index = cache
    d = np.zeros_like(logits)
    for n, (z, y) in enumerate(zip(logits, targets)):
        if y != ignore_index:
            e = np.exp(z - z.max())
            d[n] = dout[n] * (e / e.sum() - (np.arange(len(z)) == y))
    return d
""",
    "layernorm_forward": """
def layernorm_forward(x, weight, bias, eps):
    return (x - x.mean(-1)[..., None]) / (x.var(-1)[..., None] + eps) ** 0.5 * weight + bias, "nothing"
""",
    "layernorm_backward": """
def layernorm_forward(x, weight, bias, eps):
    return (x - x.mean(-1)[..., None]) / (x.var(-1)[..., None] + eps) ** 0.5 * weight + bias, (x, weight, eps)
def layernorm_backward(dout, cache):
    x, weight, eps = cache
    C = x.shape[-1]
    rows, d = x.reshape(-1, C), dout.reshape(-1, C)
    dx, dweight = np.empty_like(rows), np.zeros_like(weight)
    for n in range(len(rows)):
        c = rows[n] - rows[n].mean()
        s = (c @ c / C + eps) ** 0.5
        jacobian = (np.eye(C) - 1 / C) / s - np.outer(c, c) / (C * s ** 3)
        dx[n] = jacobian @ (d[n] * weight)
        dweight += d[n] * c / s
    return dx.reshape(x.shape), dweight, d.sum(0)
""",
    "residual_layernorm": """
def residual_layernorm_forward(x, y, weight, bias, eps):
    s = x + y
    return (s, layernorm_forward(s, weight, bias, eps)[0]), (s, weight, bias, eps)
def residual_layernorm_backward(douts, cache):
    dx, dweight, dbias = layernorm_backward(douts[1], layernorm_forward(*cache)[1])
    return dx + douts[0], dx + douts[0], dweight, dbias
""",
    "dropout": """
def dropout_forward(x, p, key):
    out = np.where(keep_mask(x.size, p, key).reshape(x.shape), x / (1 - p), 0)
    return out.astype(x.dtype), (p, key, x.shape)
def dropout_backward(dout, cache):
    p, key, shape = cache
    return dropout_forward(dout, p, key)[0]
""",
    "mlp": """
def mlp_forward(x, w1, b1, w2, b2):
    h = x @ w1 + b1
    return gelu_forward(h)[0] @ w2 + b2, (x, w1, w2, h)
def mlp_backward(dout, cache):
    x, w1, w2, h = cache
    flat = lambda a: a.reshape(-1, a.shape[-1])
    a, c = gelu_forward(h)
    dh = gelu_backward(dout @ w2.T, c)
    return dh @ w1.T, flat(x).T @ flat(dh), flat(dh).sum(0), flat(a).T @ flat(dout), flat(dout).sum(0)
""",
    "attention_forward": """
def attention_forward(qkv, n_head):
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    HS, out = C // n_head, np.empty((B, T, C), qkv.dtype)
    for b in range(B):
        for h in range(n_head):
            q, k, v = (qkv[b, :, i * C + h * HS:i * C + (h + 1) * HS] for i in range(3))
            for t in range(T):
                s = k[:t + 1] @ q[t] / HS ** 0.5
                e = np.exp(s - s.max())
                out[b, t, h * HS:(h + 1) * HS] = e @ v[:t + 1] / e.sum()
    return out, ()
""",
    "attention_backward": """
def attention_backward(dout, cache):
    q, k, v, P = cache
    B, NH, T, HS = q.shape
    d = dout.reshape(B, T, NH, HS).transpose(0, 2, 1, 3)
    out = P @ v
    dS = P * (np.einsum("bhtd,bhsd->bhts", d, v) - (d * out).sum(-1)[..., None]) / HS ** 0.5
    parts = (np.einsum("bhts,bhsd->bthd", dS, k), np.einsum("bhts,bhtd->bshd", dS, q),
             np.einsum("bhts,bhtd->bshd", P, d))
    return np.stack(parts, 2).reshape(B, T, 3 * NH * HS)
""",
    "online_softmax_forward": """
def online_softmax_forward(q, k, v, block):
    out, lse = np.zeros_like(q), np.full((len(q), 1), -np.inf, q.dtype)
    for i in range(0, len(k), block):
        S = q @ k[i:i + block].T / q.shape[1] ** 0.5
        top = S.max(1, keepdims=True)
        e = np.exp(S - top)
        part = top + np.log(e.sum(1, keepdims=True))
        both = np.logaddexp(lse, part)
        out = out * np.exp(lse - both) + e @ v[i:i + block] * np.exp(top - both)
        lse = both
    return out, (q, k, v, block, out, lse)
""",
    "online_softmax_backward": """
def online_softmax_backward(dout, cache):
    q, k, v, block, out, lse = cache
    a = q.shape[1] ** -0.5
    rows = np.einsum("td,td->t", dout, out)[:, None]
    dq, dk, dv = 0 * q, [], []
    for i in range(0, len(k), block):
        P = np.exp(a * q @ k[i:i + block].T - lse)
        dS = P * (dout @ v[i:i + block].T - rows) * a
        dq = dq + dS @ k[i:i + block]
        dk.append(dS.T @ q)
        dv.append(P.T @ dout)
    return dq, np.concatenate(dk), np.concatenate(dv)
""",
    "block_forward": """
def block_forward(x, p, n_head):
    norm = lambda x, name: layernorm_forward(x, p[name + ".weight"], p[name + ".bias"])[0]
    line = lambda x, name: x @ p[name + ".weight"] + p[name + ".bias"]
    x = x + line(attention_forward(line(norm(x, "ln1"), "attn"), n_head)[0], "proj")
    return x + mlp_forward(norm(x, "ln2"), p["fc.weight"], p["fc.bias"], p["out.weight"], p["out.bias"])[0]
""",
    "block_backward": """
def block_backward(dout, cache):
    ln1, attn, attention, proj, ln2, mlp = cache
    db, *last = mlp_backward(dout, mlp)
    d, *second = layernorm_backward(db, ln2)
    d += dout
    dmixed, *third = linear_backward(d, proj)
    da, *fourth = linear_backward(attention_backward(dmixed, attention), attn)
    dx, *fifth = layernorm_backward(da, ln1)
    return [dx + d, *fifth, *fourth, *third, *second, *last]
""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_solution_passes(name, tmp_path):
    """Put below the reference, whose functions it replaces."""
    exercise = exercise_called(name)
    stage = judged(exercise, f"{exercise.reference()}\nimport numpy as np\n{RIGHT[name]}", tmp_path)
    assert stage.passed, stage
