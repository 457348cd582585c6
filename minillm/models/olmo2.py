"""OLMo 2, line for line forward and back: Llama with its norms behind the sublayers.

    x = embedding(tokens)                                        (B, T, C)
    for each block:  x <- x + ln_1(proj(attention(qkv(x))))      q and k are normalised, all heads at once, then rotated
                     x <- x + ln_2(mlp(x))                       down(silu(gate) * up)
    logits = ln_f(x) @ head.T

Beside llama.py: a sublayer reads the residual stream as it is, and what it adds is normalised, which keeps the sizes of
activations and gradients steady in long training.

Source: OLMo Team 2025, arXiv 2501.00656, section 3. Names are Hugging Face's.
"""
from collections import namedtuple
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..kernels.select import Ops
from .gpt2 import check_tokens, only_known
from .kv_cache import KVCache
from .llama import Array, Llama
from .llama_files import EMBEDDING
from .params import Params

# The activations of a block: the cache of each op, in forward order.
Block = namedtuple("Block", "q k v q_norm k_norm q_rope k_rope attention o norm_1 gate up swiglu down norm_2 last")


class Olmo2(Llama):
    """An OLMo 2: Llama's class with a block of its own."""

    families = ("olmo2",)
    runs_on = ("token_embedding", "rmsnorm", "projection", "rope", "grouped_attention", "attention_decode", "swiglu",
               "head", "linear_cross_entropy")

    def embed(self, tokens: Array, ops: Ops) -> tuple[Array, Array, tuple]:
        x, embedding = ops.token_embedding_forward(tokens, self.params[EMBEDDING])
        return x, x, (tokens, embedding)                                          # no norm before the first sublayer

    def embed_back(self, dx: Array, dn: Array, first: tuple, ops: Ops, g: Params) -> None:
        tokens, embedding = first
        ops.token_embedding_backward(self.but_pads(dx + dn, tokens), embedding, into=(g[EMBEDDING],))

    def norms_after_blocks(self) -> list[str]:
        """No norm, but at the end the last."""
        return [""] * (self.config.n_layer - 1) + ["model.norm.weight"]

    def block(self, i: int, norm: str, x: Array, n: Array, ops: Ops) -> tuple[Array, Array, Any]:
        """Block i: the residual stream x, which is what it reads, too (n) -> the same, or at the end x and its norm."""
        p, eps, at = self.params, self.config.norm_eps, f"model.layers.{i}"
        cos, sin = self.cos[:n.shape[1]], self.sin[:n.shape[1]]                                 # (T, HS / 2)
        q, q_cache = self.project(n, f"{at}.self_attn.q_proj")                                  # (B, T, NH * HS)
        k, k_cache = self.project(n, f"{at}.self_attn.k_proj")                                  # (B, T, NKV * HS)
        v, v_cache = self.project(n, f"{at}.self_attn.v_proj")
        q, q_norm = ops.rmsnorm_forward(q, p[f"{at}.self_attn.q_norm.weight"], eps)
        k, k_norm = ops.rmsnorm_forward(k, p[f"{at}.self_attn.k_norm.weight"], eps)
        q, q_rope = ops.rope_forward(q, cos, sin)
        k, k_rope = ops.rope_forward(k, cos, sin)
        a, attention = ops.grouped_attention_forward(q, k, v, self.config.n_head)
        a, o = self.project(a, f"{at}.self_attn.o_proj")                                        # (B, T, C)
        a, norm_1 = ops.rmsnorm_forward(a, p[f"{at}.post_attention_layernorm.weight"], eps)
        x = x + a
        h, gate = self.project(x, f"{at}.mlp.gate_proj")                                        # (B, T, n_inner)
        u, up = self.project(x, f"{at}.mlp.up_proj")
        m, swiglu = ops.swiglu_forward(h, u)
        m, down = self.project(m, f"{at}.mlp.down_proj")                                        # (B, T, C)
        m, norm_2 = ops.rmsnorm_forward(m, p[f"{at}.post_feedforward_layernorm.weight"], eps)
        x = x + m
        n, last = ops.rmsnorm_forward(x, p[norm], eps) if norm else (x, None)
        return x, n, Block(q_cache, k_cache, v_cache, q_norm, k_norm, q_rope, k_rope, attention, o, norm_1, gate, up,
                           swiglu, down, norm_2, last)

    def block_back(self, i: int, norm: str, dx: Array | None, dn: Array, kept: Any, ops: Ops,
                   g: Params) -> tuple[Array, Array]:
        at = f"model.layers.{i}"
        dx = ops.rmsnorm_backward(dn, kept.last, into=(g[norm],))[0] if norm else dx + dn
        dm = ops.rmsnorm_backward(dx, kept.norm_2, into=(g[f"{at}.post_feedforward_layernorm.weight"],))[0]
        dm = self.project_back(ops, dm, kept.down, g, f"{at}.mlp.down_proj")
        dgate, dup = ops.swiglu_backward(dm, kept.swiglu)
        dx = dx + self.project_back(ops, dgate, kept.gate, g, f"{at}.mlp.gate_proj")
        dx = dx + self.project_back(ops, dup, kept.up, g, f"{at}.mlp.up_proj")
        da = ops.rmsnorm_backward(dx, kept.norm_1, into=(g[f"{at}.post_attention_layernorm.weight"],))[0]
        da = self.project_back(ops, da, kept.o, g, f"{at}.self_attn.o_proj")
        dq, dk, dv = ops.grouped_attention_backward(da, kept.attention)
        dq, dk = ops.rope_backward(dq, kept.q_rope), ops.rope_backward(dk, kept.k_rope)
        dq = ops.rmsnorm_backward(dq, kept.q_norm, into=(g[f"{at}.self_attn.q_norm.weight"],))[0]
        dk = ops.rmsnorm_backward(dk, kept.k_norm, into=(g[f"{at}.self_attn.k_norm.weight"],))[0]
        dn = self.project_back(ops, dq, kept.q, g, f"{at}.self_attn.q_proj")
        dn = dn + self.project_back(ops, dk, kept.k, g, f"{at}.self_attn.k_proj")
        return dx, dn + self.project_back(ops, dv, kept.v, g, f"{at}.self_attn.v_proj")

    def block_again(self, ops: Ops, i: int, x: Array) -> Any:
        return self.block(i, self.norms_after_blocks()[i], x, x, ops)[2]

    def step_traits(self) -> dict[str, Any]:
        return {"whole_norms": True}

    def decode(self, tokens: Array, cache: KVCache, rows: ArrayLike | None = None, last: bool = False) -> Array:
        check_tokens(tokens)
        rows, starts = cache.room_for(tokens, rows)
        if self.few(tokens, cache):
            return self.decode_few(tokens, cache, rows, last)
        p, ops, eps = self.params, self.ops, self.config.norm_eps
        x = ops.token_embedding_forward(tokens, p[EMBEDDING])[0]                                # (B, T, C)
        for i in range(self.config.n_layer):
            at = f"model.layers.{i}"
            q, k, v = (self.project(x, f"{at}.self_attn.{name}_proj")[0] for name in "qkv")
            q = self.rotate(ops.rmsnorm_forward(q, p[f"{at}.self_attn.q_norm.weight"], eps)[0], starts)
            k = self.rotate(ops.rmsnorm_forward(k, p[f"{at}.self_attn.k_norm.weight"], eps)[0], starts)
            a = cache.append_and_attend(ops, i, rows, *map(self.heads, (q, k, v)))              # (B, T, NH * HS)
            a = self.project(a, f"{at}.self_attn.o_proj")[0]
            x = x + ops.rmsnorm_forward(a, p[f"{at}.post_attention_layernorm.weight"], eps)[0]
            h, u = (self.project(x, f"{at}.mlp.{name}_proj")[0] for name in ("gate", "up"))
            m = self.project(ops.swiglu_forward(h, u)[0], f"{at}.mlp.down_proj")[0]
            x = x + ops.rmsnorm_forward(m, p[f"{at}.post_feedforward_layernorm.weight"], eps)[0]
        cache.lengths[rows] += tokens.shape[1]
        if last:
            x = np.ascontiguousarray(x[:, -1:])                                                 # (B, 1, C)
        return only_known(self.logits_of(x), self.known)
