"""Gemma 1 and 2, line for line forward and back: Llama with another scale of its parts.

    x = sqrt(C) * embedding(tokens)                              (B, T, C)
    for each block:  x <- x + ln_2(proj(attention(qkv(ln_1(x)))))
                     x <- x + ln_4(mlp(ln_3(x)))                 down(gelu(gate) * up)
    logits = ln_f(x) @ wte.T

Beside llama.py: the embedding is scaled, a norm's weight counts from 1 (its gain is 1 + w, so that weight decay draws
it to 1), and GeGLU stands for SwiGLU. Gemma 2 also normalises what the sublayers add (ln_2 and ln_4), has a window in
every other layer, divides scores by the root of a number that need not be head_dim, and soft-caps scores and logits.

Source: Gemma Team 2024, arXiv 2403.08295 and 2408.00118. Names are Hugging Face's.
"""
import math
from collections import namedtuple
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..kernels.select import Ops
from .gpt2 import check_targets, check_tokens, only_known
from .kv_cache import KVCache
from .llama import Array, Llama
from .llama_files import EMBEDDING, NORMS, USUAL_NORMS
from .params import Params, matrix

# The activations of a block, as Llama's; after_1 and after_2 are Gemma 2's norms of what the sublayers add.
Block = namedtuple("Block", "q k v q_rope k_rope attention o after_1 norm_2 gate up geglu down after_2 next_norm")


class Gemma(Llama):
    """A Gemma 1 or 2: Llama's class with a block of its own."""

    families = ("gemma", "gemma2")
    runs_on = ("token_embedding", "rmsnorm", "residual_rmsnorm", "projection", "rope", "grouped_attention",
               "attention_decode", "geglu", "head", "linear_cross_entropy", "softcap", "cross_entropy")

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        c = self.config
        times = math.sqrt(c.head_dim / c.query_size) if c.query_size else 1.0   # attention divides by sqrt(head_dim)
        self.q_cos, self.q_sin = times * self.cos, times * self.sin
        self.after_1, self.before_2, self.after_2 = NORMS.get(c.family, USUAL_NORMS)[1:]

    def gain(self, name: str) -> Array:
        return 1 + self.params[name]

    def embed(self, tokens: Array, ops: Ops) -> tuple[Array, Array, tuple]:
        x, embedding = ops.token_embedding_forward(tokens, self.params[EMBEDDING])
        x = math.sqrt(self.config.n_embd) * x
        n, norm = ops.rmsnorm_forward(x, self.gain("model.layers.0.input_layernorm.weight"), self.config.norm_eps)
        return x, n, (tokens, embedding, norm)

    def embed_back(self, dx: Array, dn: Array, first: tuple, ops: Ops, g: Params) -> None:
        tokens, embedding, norm = first
        dn, _ = ops.rmsnorm_backward(dn, norm, into=(g["model.layers.0.input_layernorm.weight"],))
        dx = math.sqrt(self.config.n_embd) * self.but_pads(dx + dn, tokens)
        ops.token_embedding_backward(dx, embedding, into=(g[EMBEDDING],))

    def block(self, i: int, norm: str, x: Array, n: Array, ops: Ops) -> tuple[Array, Array, Any]:
        eps, at, T = self.config.norm_eps, f"model.layers.{i}", n.shape[1]
        q, q_cache = self.project(n, f"{at}.self_attn.q_proj")                                  # (B, T, NH * HS)
        k, k_cache = self.project(n, f"{at}.self_attn.k_proj")                                  # (B, T, NKV * HS)
        v, v_cache = self.project(n, f"{at}.self_attn.v_proj")
        q, q_rope = ops.rope_forward(q, self.q_cos[:T], self.q_sin[:T])
        k, k_rope = ops.rope_forward(k, self.cos[:T], self.sin[:T])
        a, attention = ops.grouped_attention_forward(q, k, v, self.config.n_head, self.config.window_of(i),
                                                     self.config.attention_cap)
        a, o = self.project(a, f"{at}.self_attn.o_proj")                                        # (B, T, C)
        a, after_1 = self.norm_after(a, at, self.after_1)
        (x, n), norm_2 = ops.residual_rmsnorm_forward(x, a, self.gain(f"{at}.{self.before_2}.weight"), eps)
        h, gate = self.project(n, f"{at}.mlp.gate_proj")                                        # (B, T, n_inner)
        u, up = self.project(n, f"{at}.mlp.up_proj")
        m, geglu = ops.geglu_forward(h, u)
        m, down = self.project(m, f"{at}.mlp.down_proj")                                        # (B, T, C)
        m, after_2 = self.norm_after(m, at, self.after_2)
        (x, n), next_norm = ops.residual_rmsnorm_forward(x, m, self.gain(norm), eps)
        return x, n, Block(q_cache, k_cache, v_cache, q_rope, k_rope, attention, o, after_1, norm_2, gate, up, geglu,
                           down, after_2, next_norm)

    def block_back(self, i: int, norm: str, dx: Array | None, dn: Array, kept: Any, ops: Ops,
                   g: Params) -> tuple[Array, Array]:
        at = f"model.layers.{i}"
        dx, dm, _ = ops.residual_rmsnorm_backward((dx, dn), kept.next_norm, into=(g[norm],))
        dm = self.norm_after_back(ops, dm, kept.after_2, g, at, self.after_2)
        dm = self.project_back(ops, dm, kept.down, g, f"{at}.mlp.down_proj")
        dgate, dup = ops.geglu_backward(dm, kept.geglu)
        dn = self.project_back(ops, dgate, kept.gate, g, f"{at}.mlp.gate_proj")
        dn = dn + self.project_back(ops, dup, kept.up, g, f"{at}.mlp.up_proj")
        dx, da, _ = ops.residual_rmsnorm_backward((dx, dn), kept.norm_2, into=(g[f"{at}.{self.before_2}.weight"],))
        da = self.norm_after_back(ops, da, kept.after_1, g, at, self.after_1)
        da = self.project_back(ops, da, kept.o, g, f"{at}.self_attn.o_proj")
        dq, dk, dv = ops.grouped_attention_backward(da, kept.attention)
        dq, dk = ops.rope_backward(dq, kept.q_rope), ops.rope_backward(dk, kept.k_rope)
        dn = self.project_back(ops, dq, kept.q, g, f"{at}.self_attn.q_proj")
        dn = dn + self.project_back(ops, dk, kept.k, g, f"{at}.self_attn.k_proj")
        return dx, dn + self.project_back(ops, dv, kept.v, g, f"{at}.self_attn.v_proj")

    def block_again(self, ops: Ops, i: int, x: Array) -> Any:
        n, _ = ops.rmsnorm_forward(x, self.gain(f"model.layers.{i}.input_layernorm.weight"), self.config.norm_eps)
        return self.block(i, self.norms_after_blocks()[i], x, n, ops)[2]

    def norm_after(self, x: Array, at: str, name: str) -> tuple[Array, tuple | None]:
        """The norm of what a sublayer adds, where there is one (Gemma 2)."""
        if not name:
            return x, None
        return self.ops.rmsnorm_forward(x, self.gain(f"{at}.{name}.weight"), self.config.norm_eps)

    def norm_after_back(self, ops: Ops, dout: Array, cache: tuple | None, g: Params, at: str, name: str) -> Array:
        return ops.rmsnorm_backward(dout, cache, into=(g[f"{at}.{name}.weight"],))[0] if name else dout

    def forward(self, tokens: Array) -> tuple[Array, tuple]:
        x, activations = self.hidden(tokens)
        return self.capped(self.ops.head(x, self.params[self.head])), (x, activations)

    def capped(self, logits: Array) -> Array:
        return self.ops.softcap_forward(logits, self.config.logit_cap)[0] if self.config.logit_cap else logits

    def losses(self, tokens: Array, targets: Array, ignore_index: int = -1, key: Any = None,
               lengths: list[int] | None = None) -> tuple[Array, list]:
        """As Llama's; capped logits are made whole, for the fused loss caps none."""
        if not self.config.logit_cap:
            return super().losses(tokens, targets, ignore_index, key, lengths)
        check_targets(targets, tokens)
        x, activations = self.hidden(tokens, key, lengths)
        logits, head = self.ops.projection_forward(x, matrix(self.params, self.head))          # (B, T, V)
        logits, cap = self.ops.softcap_forward(logits, self.config.logit_cap)
        losses, entropy = self.ops.cross_entropy_forward(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1),
                                                         ignore_index)
        return losses, [activations, (head, cap, entropy)]

    def backward(self, dlosses: Array, caches: list, grads: Params | None = None) -> Params:
        if not self.config.logit_cap:
            return super().backward(dlosses, caches, grads)
        g, ops = grads if grads is not None else self.params.zeros_like(), caches[0].ops
        head, cap, entropy = caches.pop()
        dlogits = ops.cross_entropy_backward(dlosses, entropy)                                  # (B * T, V)
        dlogits = ops.softcap_backward(dlogits.reshape(*caches[0].shape[:2], -1), cap)
        dn = ops.projection_backward(dlogits, head, into=(g[self.head], None))[0]
        return self.hidden_backward(dn, caches.pop(), g)

    def step_traits(self) -> dict[str, Any]:
        c = self.config
        return {"query_angles": (self.q_cos, self.q_sin), "geglu": True, "from_one": True,
                "embedding_scale": math.sqrt(c.n_embd), "softcap": float(c.attention_cap)}

    def decode(self, tokens: Array, cache: KVCache, rows: ArrayLike | None = None, last: bool = False) -> Array:
        check_tokens(tokens)
        rows, starts = cache.room_for(tokens, rows)
        if self.few(tokens, cache):
            return only_known(self.capped(self.decode_few(tokens, cache, rows, last)), self.known)
        p, ops, eps = self.params, self.ops, self.config.norm_eps
        x = math.sqrt(self.config.n_embd) * ops.token_embedding_forward(tokens, p[EMBEDDING])[0]
        for i in range(self.config.n_layer):
            at = f"model.layers.{i}"
            n, _ = ops.rmsnorm_forward(x, self.gain(f"{at}.input_layernorm.weight"), eps)
            q, k, v = (self.project(n, f"{at}.self_attn.{name}_proj")[0] for name in "qkv")
            q, k = self.rotate(q, starts, (self.q_cos, self.q_sin)), self.rotate(k, starts)
            q, k, v = map(self.heads, (q, k, v))                                                # (B, heads, T, HS)
            a = cache.append_and_attend(ops, i, rows, q, k, v, self.config.window_of(i), self.config.attention_cap)
            x = x + self.norm_after(self.project(a, f"{at}.self_attn.o_proj")[0], at, self.after_1)[0]
            n, _ = ops.rmsnorm_forward(x, self.gain(f"{at}.{self.before_2}.weight"), eps)
            h, u = (self.project(n, f"{at}.mlp.{name}_proj")[0] for name in ("gate", "up"))
            m = self.project(ops.geglu_forward(h, u)[0], f"{at}.mlp.down_proj")[0]
            x = x + self.norm_after(m, at, self.after_2)[0]
        cache.lengths[rows] += tokens.shape[1]
        if last:
            x = np.ascontiguousarray(x[:, -1:])                                                 # (B, 1, C)
        return only_known(self.logits_of(x), self.known)

    def logits_of(self, x: Array) -> Array:
        n, _ = self.ops.rmsnorm_forward(x, self.gain("model.norm.weight"), self.config.norm_eps)
        return self.capped(self.ops.head(n, self.params[self.head]))
