"""Attention for cached decoding: the newest tokens' queries against the keys and values of all tokens so far.

    scale = 1 / sqrt(HS)            w[t, s] = scale * q[t] . k[s]               of T queries and S >= T keys
    P[t, s] = exp(w[t, s]) / sum over r <= S - T + t of exp(w[t, r])
    out[t] = sum over s <= S - T + t of P[t, s] * v[s]

It is the last T rows of `attention` (derived there), for autoregressive decoding with a KV cache: keys and values of
earlier tokens do not change, so only those of new tokens are computed. Forward only. k and v may have fewer heads, each
for a group of query heads, a window may bound how far a query sees, and there may be sinks and a soft-cap: see
grouped_attention.py.
"""
from .attention import causal_softmax
from .checks import check_dtype, check_float, check_shape
from .grouped_attention import check_options, column_of, scores, ungrouped
from .spec import CPU, GPU, Spec, normals, wrong


def attention_decode(q, k, v, window=0, softcap=0.0, sinks=None):
    """Attend from the newest T tokens to all S tokens of the KV cache; query t stands at position S - T + t.

    q (B, NH, T, HS), k and v (B, NKV, S, HS) with S >= T, NKV dividing NH, window 0 (all) or how many tokens a query
    sees, softcap 0 (none) or the bound of the scores, sinks None or (NH) -> out (B, T, NH*HS). Raises ValueError for
    shapes or dtypes that differ, for HS = 0 and for more queries than keys.
    """
    check_float("q", q)
    check_shape("q", q, (None, None, None, None))
    check_shape("k", k, (len(q), None, None, q.shape[3]))
    check_shape("v", v, k.shape)
    for name, array in (("k", k), ("v", v)):
        check_dtype(name, array, q.dtype)
    (B, NH, T, HS), NKV = q.shape, k.shape[1]
    if not HS:
        raise ValueError(f"q must have at least one number a head: got {q.shape}")
    if NH and (not NKV or NH % NKV):
        raise ValueError(f"k must have a number of heads that divides q's {NH}: got {NKV}")
    if T > k.shape[2]:
        raise ValueError(f"q must not be longer than k: got {T} queries for {k.shape[2]} keys")
    check_options(window, sinks, softcap, NH, q.dtype)
    groups = q.reshape(B, NKV, NH // max(1, NKV), T, HS)             # (B, NKV, group, T, HS)
    k, v = k[:, :, None], v[:, :, None]                              # (B, NKV, 1, S, HS)
    P = causal_softmax(scores(groups, k, softcap), window, column_of(sinks, NKV))
    return ungrouped(P[..., :k.shape[3]] @ v)


def sample(rng, dtype, d):
    new, kept = (d.B, d.NH, 1, d.C // d.NH), (d.B, d.NH, d.T, d.C // d.NH)
    return normals(rng, dtype, q=new, k=kept, v=kept)


def torch_attention_decode(torch, q, k, v):
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)     # one query, which sees every key: no mask
    return out.transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


SPEC = Spec(
    "attention_decode", sample, kind="decode", differentiable=(), kernels=CPU | GPU,
    bad=wrong("q", "integers", "flatter") + wrong("k", "narrower", "other_dtype")
    + wrong("v", "narrower", "other_dtype"),
    # of T queries, the first sees S - T + 1 keys, the last all S: on average S - T / 2, as attention counts
    flops=lambda d: (4 * d.B * d.T * d.C if not d.S else 2 * d.B * d.T * (2 * d.S - d.T * (d.T > 1)) * d.C, 0),
    c=("out[B,T,C] <- q[B,NH,T,HS] k[B,NH,S,HS] v[B,NH,S,HS]; B T S C NH HS",),
    torch=torch_attention_decode)
