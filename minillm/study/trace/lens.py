"""What the layers look at and what they would say: attention maps of every head, and the logit lens.

The logit lens reads the residual stream after each sublayer as if it were the last: ln_f and the head on it give a
probability for every token. Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""
from collections.abc import Callable
from typing import Any

import numpy as np

from ...config import LlamaConfig
from ...models.params import layer
from ...ops.attention import attention_forward, causal_softmax
from ...ops.grouped_attention import grouped_attention_forward
from .numbers import shortest
from .watch import Record

Array = np.ndarray
EMBEDDINGS = ("embedding", "token_embedding")
WIDE = 24                   # positions that are shown of a map, the last ones
NUMBERS = 20_000            # probabilities in all maps
POSITIONS = 16              # of the lens


def attention_maps(seen: Record) -> list[dict]:
    """P of every head, forward and in decoding, by the reference from the recorded queries and keys."""
    found = []
    calls = [call for call in seen.calls if call["op"] in ("attention", "grouped_attention", "attention_decode")]
    calls = [call for call in calls if call["phase"] in ("forward", "decode")]
    for call in calls:
        P = probabilities(seen, call)                                           # (NH, T, S)
        share = int((NUMBERS / len(calls) / len(P)) ** 0.5)
        wide = max(4, min(WIDE, share))
        T, S = P.shape[1:]
        queries, keys = range(max(0, T - wide), T), range(max(0, S - wide), S)
        depth = [other for other in calls if other["phase"] == call["phase"]].index(call)
        for head, map_ in enumerate(P):
            found.append({"call": call["id"], "phase": call["phase"], "layer": depth, "head": head,
                          "queries": [S - T + t for t in queries], "keys": [*keys],
                          "values": shortest(map_[queries.start:, keys.start:])})
    return found


def probabilities(seen: Record, call: dict) -> Array:
    given = {put["name"]: seen.live[put["array"]] if "array" in put else put["value"] for put in call["inputs"]}
    if call["op"] == "attention":
        return attention_forward(given["qkv"], given["n_head"])[1][2][0]
    if call["op"] == "grouped_attention":
        more = given["n_head"], given.get("window", 0), given.get("softcap", 0.0)
        P = grouped_attention_forward(given["q"], given["k"], given["v"], *more)[1][-1][0]
        return P.reshape(-1, *P.shape[2:])                                      # (NKV, group, T, T) -> (NH, T, T)
    q, k = (call["values"][name][0] for name in "qk")           # (NH, T, HS), (NKV, S, HS); the record has flat ones
    k = np.repeat(k, len(q) // len(k), axis=0)
    scores, cap = q.shape[-1] ** -0.5 * (q @ k.swapaxes(-1, -2)), given.get("softcap", 0.0)
    return causal_softmax(cap * np.tanh(scores / cap) if cap else scores, given.get("window", 0))


def logit_lens(model: Any, seen: Record, text: Callable[[int], str]) -> list[dict]:
    """The best tokens by the residual stream after the embedding and after each sublayer."""
    found = []
    calls = [call for call in seen.calls if call["phase"] == "forward" and call["parent"] is None]
    outputs = [(call, output) for call in calls for output in call["outputs"]]
    scaled = any(call["function"] == "*" for call in calls)                     # Gemma's embedding
    own = not any(output["name"] == "s" for _, output in outputs)               # OLMo 2 has its sums outside of ops
    for call, output in outputs:
        embedded = call["function"] == "*" if scaled else call["op"] in EMBEDDINGS
        if embedded or output["name"] == "s" or own and call["function"] == "+":
            x = seen.live[output["array"]]
            kept = range(max(0, x.shape[1] - POSITIONS), x.shape[1])
            logits = read_as_last(model, x)[0, kept.start:]
            found.append({"array": output["array"], "label": label(model, len(found)),
                          "positions": [{"position": t, "top": top}
                                        for t, top in zip(kept, best(model, logits, text, 5))]})
    return found


def read_as_last(model: Any, x: Array) -> Array:
    """The logits of the residual stream x (B, T, C), as if it were the last."""
    p, ops = model.params, model.ops
    if isinstance(model.config, LlamaConfig):
        return model.logits_of(x)
    return ops.head(ops.layernorm_forward(x, *layer(p, "ln_f"), model.config.layer_norm_epsilon)[0], p[model.head])


def label(model: Any, place: int) -> str:
    if place == 0:
        return "after the embedding"
    return f"{model.layers.blocks}.{(place - 1) // 2} after {'attention' if place % 2 else 'the MLP'}"


def best(model: Any, logits: Array, text: Callable[[int], str], count: int) -> list[list[dict]]:
    """The tokens of the largest logits (N, V), row by row, with their probabilities."""
    P = np.asarray(model.ops.softmax_forward(logits)[0])
    rows = []
    for row, p in zip(logits, P):
        order = np.argsort(-row, kind="stable")[:count]
        rows.append([{"id": int(i), "text": text(int(i)), "logit": logit, "probability": share}
                     for i, logit, share in zip(order, shortest(row[order]), shortest(p[order]))])
    return rows
