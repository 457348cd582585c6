"""Llama and its kin (Llama 2 and 3, Mistral, Qwen2, Qwen3, SmolLM2, TinyLlama), line for line forward and back.

    x = embedding(tokens)                                        (B, T, C)
    for each block:  x <- x + proj(attention(qkv(ln_1(x))))      q and k are rotated by rope
                     x <- x + mlp(ln_2(x))                       down(silu(gate) * up)
    loss = cross_entropy(ln_f(x) @ head.T)                       the head is wte again if `tied`

Beside gpt2.py: RMSNorm for LayerNorm, rotary positions for learned ones, heads of keys and values shared by groups of
query heads, a gated MLP, and weights stored (out, in), mostly without biases. Qwen3 normalises each head of q and k.
Every addition to the residual stream is followed by an RMSNorm, so the two are one op, as there.

Source: Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Qwen3: arXiv 2505.09388. Names are Hugging Face's.
"""
from collections import namedtuple
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..config import LlamaConfig
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer.roles import EndOfText
from .adapted import LLAMA_LAYERS
from .gpt2 import check_targets, check_tokens, only_known, take_weights
from .kv_cache import FEW_TOKENS, KVCache, stepwise
from .llama_files import EMBEDDING, NORMS, USUAL_NORMS, deviation, llama_shapes, read_llama, write_llama
from .packing import apart
from .params import HEAD, Params, matrix
from .quantized import load_weights_as, multiplies_integers
from .rope import rope_angles
from .weights import derived_again, ops_for, read_dequantized

Array = np.ndarray

# The activations of a block: the cache of each op, in forward order; next_norm is the norm after the block.
Block = namedtuple("Block", "q k v q_norm k_norm q_rope k_rope attention o norm_2 gate up swiglu down next_norm")
# What `hidden` keeps for its backward: the ops it ran on, the shape of its result, caches; `blocks` is emptied there.
# Of each block it has Block, or only the block's input x where `again(i, x)` is to make that once more.
Activations = namedtuple("Activations", "ops again shape first blocks")


class Llama:
    """A Llama: `config`, `params` (one flat buffer with views) and the `ops` it runs on.

    recompute: as of GPT, keep of each block its input only, and make the rest again, bit for bit, in the backward.
    """

    families: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3")
    recompute = False
    kv_cache = "float"
    known: int | None = None
    shapes = staticmethod(llama_shapes)
    layers = LLAMA_LAYERS
    runs_on: tuple[str, ...] = (                                                # as of GPT
        "token_embedding", "rmsnorm", "residual_rmsnorm", "projection", "rope", "grouped_attention",
        "attention_decode", "swiglu", "head", "linear_cross_entropy")

    def __init__(self, config: LlamaConfig, seed: int = 0, dtype: DTypeLike = np.float32, ops: Ops | None = None,
                 params: Any = None):
        """Fresh weights from `seed`, unless `params` are given. `ops` defaults to select("auto")."""
        if config.family not in self.families:
            raise ValueError(f"family must be one of {', '.join(self.families)} for {type(self).__name__}: got "
                             f"{config.family!r}")
        self.config, self.names = config, tuple(llama_shapes(config))
        self.params = params if params is not None else initialise(config, seed, dtype)
        self.ops = ops_for(self.params, ops or select("auto"))
        self.head = EMBEDDING if config.tied else HEAD
        self.chunked_prefill = read_dequantized(self.ops, self.params[self.head])
        self.rows_of_tokens = tuple({EMBEDDING: 0, self.head: 1})               # tensors with a row for each token
        self.dtype = self.params["model.norm.weight"].dtype
        self.cos, self.sin = angles(config, self.dtype)

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.ops = derived_again(self.params, self.ops)

    def on(self, ops: Ops, params: Any = None) -> "Llama":
        """The same Llama on other ops; with its own parameters, or others."""
        other = type(self)(self.config, ops=ops, params=self.params if params is None else params)
        other.recompute, other.known, other.kv_cache = self.recompute, self.known, self.kv_cache
        return other

    @classmethod
    def from_pretrained(cls, directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
                        weights: str | None = None) -> "Llama":
        """Load config.json and model.safetensors: ours, or a directory saved by transformers; weights as of GPT.

        Raises ValueError for a model with a feature that is not computed here, which it names.
        """
        return load_weights_as(cls, read_llama, directory, ops, dtype, weights)

    def save_pretrained(self, directory: AnyPath, eot_token: EndOfText = None) -> None:
        """Write config.json and model.safetensors, which transformers reads too. Raises ValueError naming a setting
        that the files of the family cannot say."""
        write_llama(directory, self.config, self.params, eot_token)

    def load_weights(self, directory: AnyPath) -> None:
        """Take the parameters of a directory, in place. Raises ValueError if it holds a model of another shape."""
        take_weights(self, directory, *read_llama(directory, self.params.flat.dtype))

    @property
    def takes_weight_copy(self) -> bool:
        """Do all its GEMMs multiply in bfloat16, so that they may read a copy of the weights in that type?"""
        return {self.ops.backends[op] for op in ("projection", "linear_cross_entropy")} == {"cpu/bf16"}

    def forward(self, tokens: Array) -> tuple[Array, tuple]:
        """tokens (B, T) int -> logits (B, T, V), cache. Raises ValueError for a bad token or T > block_size."""
        x, activations = self.hidden(tokens)
        return self.ops.head(x, self.params[self.head]), (x, activations)

    def loss_and_grads(self, tokens: Array, targets: Array, ignore_index: int = -1, key: Any = None,
                       grads: Params | None = None, count: int | None = None,
                       lengths: list[int] | None = None) -> tuple[float, Params]:
        """Mean loss over the valid targets, and the gradient of every parameter; arguments as of GPT.loss_and_grads."""
        losses, caches = self.losses(tokens, targets, ignore_index, key, lengths)
        count = count or max(1, int((targets != ignore_index).sum()))
        dlosses = np.full(losses.shape, 1 / count, losses.dtype)
        return float(losses.sum()) / count, self.backward(dlosses, caches, grads)

    def losses(self, tokens: Array, targets: Array, ignore_index: int = -1, key: Any = None,
               lengths: list[int] | None = None) -> tuple[Array, list]:
        """Loss of every token in nats, 0 where ignored: tokens, targets (B, T) -> losses (B*T,), caches.

        key: of dropout, which there is none of. With lengths, tokens is one row (1, N) of documents of these lengths,
        which do not see each other. caches: a list that `backward` empties.
        """
        check_targets(targets, tokens)
        x, activations = self.hidden(tokens, key, lengths)
        losses, head = self.ops.linear_cross_entropy_forward(
            x.reshape(-1, x.shape[-1]), matrix(self.params, self.head), targets.reshape(-1), ignore_index)
        return losses, [activations, head]

    def hidden(self, tokens: Array, key: Any = None, lengths: list[int] | None = None) -> tuple[Array, Activations]:
        """The residual stream after the last norm: tokens (B, T) -> (B, T, C), Activations."""
        check_tokens(tokens)
        longest, ops = max(lengths or [tokens.shape[1]]), self.ops if lengths is None else apart(self.ops, lengths)
        if longest > self.config.block_size:
            raise ValueError(f"tokens must fit into block_size {self.config.block_size}: got {longest}")
        x, n, first = self.embed(tokens, ops)
        blocks = []
        for i, norm in enumerate(self.norms_after_blocks()):
            start = x
            x, n, block = self.block(i, norm, x, n, ops)
            blocks.append(start if self.recompute else block)
            del block                                                           # else it would live as long as the next
        return n, Activations(ops, partial(self.block_again, ops), n.shape, first, blocks)

    def embed(self, tokens: Array, ops: Ops) -> tuple[Array, Array, tuple]:
        """tokens (B, T) -> the residual stream and its first norm, both (B, T, C), and their caches."""
        x, embedding = ops.token_embedding_forward(tokens, self.params[EMBEDDING])
        n, norm = ops.rmsnorm_forward(x, self.params["model.layers.0.input_layernorm.weight"], self.config.norm_eps)
        return x, n, (tokens, embedding, norm)

    def block(self, i: int, norm: str, x: Array, n: Array, ops: Ops) -> tuple[Array, Array, Any]:
        """Block i and the RMSNorm named `norm` after it: x and n, its norm, (B, T, C) -> the same, and Block."""
        p, eps, at = self.params, self.config.norm_eps, f"model.layers.{i}"
        cos, sin = self.cos[:n.shape[1]], self.sin[:n.shape[1]]                                 # (T, HS / 2)
        q, q_cache = self.project(n, f"{at}.self_attn.q_proj")                                  # (B, T, NH * HS)
        k, k_cache = self.project(n, f"{at}.self_attn.k_proj")                                  # (B, T, NKV * HS)
        v, v_cache = self.project(n, f"{at}.self_attn.v_proj")
        q, q_norm = self.norm_heads(q, f"{at}.self_attn.q_norm.weight")
        k, k_norm = self.norm_heads(k, f"{at}.self_attn.k_norm.weight")
        q, q_rope = ops.rope_forward(q, cos, sin)
        k, k_rope = ops.rope_forward(k, cos, sin)
        a, attention = ops.grouped_attention_forward(q, k, v, self.config.n_head, self.config.window_of(i))
        a, o = self.project(a, f"{at}.self_attn.o_proj")                                        # (B, T, C)
        (x, n), norm_2 = ops.residual_rmsnorm_forward(x, a, p[f"{at}.post_attention_layernorm.weight"], eps)
        g, gate = self.project(n, f"{at}.mlp.gate_proj")                                        # (B, T, n_inner)
        u, up = self.project(n, f"{at}.mlp.up_proj")
        m, swiglu = ops.swiglu_forward(g, u)
        m, down = self.project(m, f"{at}.mlp.down_proj")                                        # (B, T, C)
        (x, n), next_norm = ops.residual_rmsnorm_forward(x, m, p[norm], eps)
        return x, n, Block(q_cache, k_cache, v_cache, q_norm, k_norm, q_rope, k_rope, attention, o, norm_2, gate, up,
                           swiglu, down, next_norm)

    def block_again(self, ops: Ops, i: int, x: Array) -> Any:
        """The activations of block i once more, from its input x (B, T, C)."""
        n, _ = ops.rmsnorm_forward(x, self.params[f"model.layers.{i}.input_layernorm.weight"], self.config.norm_eps)
        return self.block(i, self.norms_after_blocks()[i], x, n, ops)[2]

    def backward(self, dlosses: Array, caches: list, grads: Params | None = None) -> Params:
        """dlosses (B*T,) -> grads: `losses` walked back, line for line. The caches are used up."""
        g = grads if grads is not None else self.params.zeros_like()
        dn, _ = caches[0].ops.linear_cross_entropy_backward(dlosses, caches.pop(), into=(g[self.head],))
        return self.hidden_backward(dn, caches.pop(), g)

    def hidden_backward(self, dn: Array, activations: Activations, g: Params) -> Params:
        """dn, the gradient of what `hidden` returned -> g, with the gradients added."""
        ops, dn = activations.ops, dn.reshape(activations.shape)                                # -> (B, T, C)
        dx: Any = None
        for i, norm in reversed(list(enumerate(self.norms_after_blocks()))):
            kept = activations.blocks.pop()
            kept = activations.again(i, kept) if isinstance(kept, Array) else kept
            dx, dn = self.block_back(i, norm, dx, dn, kept, ops, g)
            del kept                                                            # before the next is made again
        self.embed_back(dx, dn, activations.first, ops, g)
        return g

    def embed_back(self, dx: Array, dn: Array, first: tuple, ops: Ops, g: Params) -> None:
        tokens, embedding, norm = first
        dn, _ = ops.rmsnorm_backward(dn, norm, into=(g["model.layers.0.input_layernorm.weight"],))
        ops.token_embedding_backward(self.but_pads(dx + dn, tokens), embedding, into=(g[EMBEDDING],))

    def but_pads(self, dx: Array, tokens: Array) -> Array:
        """dx (B, T, C) with zeros at the pad token."""
        return dx * (tokens != self.config.pad_token)[..., None] if self.config.pad_token >= 0 else dx

    def block_back(self, i: int, norm: str, dx: Array | None, dn: Array, kept: Any, ops: Ops,
                   g: Params) -> tuple[Array, Array]:
        """`block` walked back: the gradients of x (None: of none but n) and n after it -> those before it."""
        at = f"model.layers.{i}"
        dx, dm, _ = ops.residual_rmsnorm_backward((dx, dn), kept.next_norm, into=(g[norm],))
        dm = self.project_back(ops, dm, kept.down, g, f"{at}.mlp.down_proj")
        dgate, dup = ops.swiglu_backward(dm, kept.swiglu)
        dn = self.project_back(ops, dgate, kept.gate, g, f"{at}.mlp.gate_proj")
        dn = dn + self.project_back(ops, dup, kept.up, g, f"{at}.mlp.up_proj")
        dx, da, _ = ops.residual_rmsnorm_backward((dx, dn), kept.norm_2,
                                                  into=(g[f"{at}.post_attention_layernorm.weight"],))
        da = self.project_back(ops, da, kept.o, g, f"{at}.self_attn.o_proj")
        dq, dk, dv = ops.grouped_attention_backward(da, kept.attention)
        dq, dk = ops.rope_backward(dq, kept.q_rope), ops.rope_backward(dk, kept.k_rope)
        dq = self.norm_heads_back(ops, dq, kept.q_norm, g, f"{at}.self_attn.q_norm.weight")
        dk = self.norm_heads_back(ops, dk, kept.k_norm, g, f"{at}.self_attn.k_norm.weight")
        dn = self.project_back(ops, dq, kept.q, g, f"{at}.self_attn.q_proj")
        dn = dn + self.project_back(ops, dk, kept.k, g, f"{at}.self_attn.k_proj")
        return dx, dn + self.project_back(ops, dv, kept.v, g, f"{at}.self_attn.v_proj")

    def project(self, x: Array, name: str) -> tuple[Array, tuple]:
        """The linear layer of this name, with its bias if it has one."""
        return self.ops.projection_forward(x, matrix(self.params, f"{name}.weight"), self.params.get(f"{name}.bias"))

    def project_back(self, ops: Ops, dout: Array, cache: tuple, g: Params, name: str) -> Array:
        bias = g[f"{name}.bias"] if f"{name}.bias" in self.params else None
        return ops.projection_backward(dout, cache, into=(g[f"{name}.weight"], bias))[0]

    def norm_heads(self, x: Array, name: str) -> tuple[Array, tuple | None]:
        """RMSNorm of each head, where the model has this weight (HS): x (B, T, heads * HS) -> the same shape, cache."""
        if not self.config.qk_norm:
            return x, None
        heads = x.reshape(*x.shape[:2], -1, self.config.head_dim)                               # (B, T, heads, HS)
        out, cache = self.ops.rmsnorm_forward(heads, self.params[name], self.config.norm_eps)
        return out.reshape(x.shape), cache

    def norm_heads_back(self, ops: Ops, dout: Array, cache: tuple | None, g: Params, name: str) -> Array:
        if cache is None:
            return dout
        heads = dout.reshape(*dout.shape[:2], -1, self.config.head_dim)
        return ops.rmsnorm_backward(heads, cache, into=(g[name],))[0].reshape(dout.shape)

    def norms_after_blocks(self) -> list[str]:
        """Names of the norms that read what block 0, 1, ... leaves: the next block's first, at the end the last."""
        return [f"model.layers.{i}.input_layernorm.weight"
                for i in range(1, self.config.n_layer)] + ["model.norm.weight"]

    def new_cache(self, batch_size: int) -> KVCache:
        """An empty KV cache for `decode`, with room for batch_size sequences."""
        return KVCache(self.config, batch_size, self.dtype, self.kv_cache)

    def decode(self, tokens: Array, cache: KVCache, rows: ArrayLike | None = None, last: bool = False) -> Array:
        """Logits for the tokens that follow those in the KV cache: tokens (B, T) int -> logits (B, T, V).

        As GPT.decode: row b goes on with row rows[b] of the cache; last: only of the last token, (B, 1, V). Equal to
        the last rows of `forward` on the whole sequence. What stands below is the definition: a few tokens take the
        same steps in compiled calls, with the same bits, and so does a long prompt of quantized weights.
        """
        check_tokens(tokens)
        rows, starts = cache.room_for(tokens, rows)
        p, ops, eps = self.params, self.ops, self.config.norm_eps
        if self.few(tokens, cache):
            return self.decode_few(tokens, cache, rows, last)
        x = ops.token_embedding_forward(tokens, p[EMBEDDING])[0]                                # (B, T, C)
        for i in range(self.config.n_layer):
            at = f"model.layers.{i}"
            n, _ = ops.rmsnorm_forward(x, p[f"{at}.input_layernorm.weight"], eps)
            q, k, v = (self.project(n, f"{at}.self_attn.{name}_proj")[0] for name in "qkv")
            q = self.rotate(self.norm_heads(q, f"{at}.self_attn.q_norm.weight")[0], starts)
            k = self.rotate(self.norm_heads(k, f"{at}.self_attn.k_norm.weight")[0], starts)
            q, k, v = map(self.heads, (q, k, v))                                                # (B, heads, T, HS)
            a = cache.append_and_attend(ops, i, rows, q, k, v, self.config.window_of(i))
            x = x + self.project(a, f"{at}.self_attn.o_proj")[0]
            n, _ = ops.rmsnorm_forward(x, p[f"{at}.post_attention_layernorm.weight"], eps)
            g, u = (self.project(n, f"{at}.mlp.{name}_proj")[0] for name in ("gate", "up"))
            x = x + self.project(ops.swiglu_forward(g, u)[0], f"{at}.mlp.down_proj")[0]
        cache.lengths[rows] += tokens.shape[1]
        if last:
            x = np.ascontiguousarray(x[:, -1:])                                                 # (B, 1, C)
        return only_known(self.logits_of(x), self.known)

    def logits_of(self, x: Array) -> Array:
        """The residual stream after the blocks (B, T, C) -> logits (B, T, V)."""
        n, _ = self.ops.rmsnorm_forward(x, self.params["model.norm.weight"], self.config.norm_eps)
        return self.ops.head(n, self.params[self.head])

    @property
    def compiled(self) -> bool:
        """Is there a compiled step for the model? It knows our classes, not those that derive from them."""
        return "step_traits" in vars(type(self)) and self.ops.llama_step is not None

    def few(self, tokens: Array, cache: KVCache) -> bool:
        """Are the tokens (B, T) so few that the compiled step takes them?"""
        few = tokens.size <= FEW_TOKENS or tokens.shape[1] == 1 or self.chunked_prefill
        return few and self.compiled and cache.compiled

    def step_traits(self) -> dict[str, Any]:
        """What the compiled step is told of a model that is not computed as Llama is."""
        return {}

    def decode_few(self, tokens: Array, cache: KVCache, rows: Array, last: bool) -> Array:
        """`decode` by the compiled step."""
        c, weights = self.config, [self.params.get(name) for name in step_names(self.config)]
        windows, traits = np.array([c.window_of(i) for i in range(c.n_layer)]), self.step_traits()

        def step(piece: Array, starts: Array, some: Array, count: int) -> Array:
            return self.ops.llama_step(piece, starts, some, weights, cache.keys, cache.values, c.norm_eps, count,
                                       self.cos, self.sin, c.n_head, c.n_inner, windows,
                                       multiplies_integers(self.params[self.head]), cache.key_scales,
                                       cache.value_scales, **traits)
        return only_known(stepwise(step, tokens, cache, rows, last), self.known)

    def rotate(self, x: Array, starts: Array, angles: tuple[Array, Array] | None = None) -> Array:
        """Rotary positions of rows that begin at different places: x (B, T, heads * HS) -> the same shape."""
        T, (cos, sin) = x.shape[1], angles or (self.cos, self.sin)
        if np.all(starts == starts[0]):
            at = slice(int(starts[0]), int(starts[0]) + T)
            return self.ops.rope_forward(x, cos[at], sin[at])[0]
        return np.concatenate([self.rotate(x[b:b + 1], starts[b:b + 1], angles) for b in range(len(x))])

    def heads(self, x: Array) -> Array:
        """(B, T, heads * HS) -> (B, heads, T, HS), a view."""
        return x.reshape(*x.shape[:2], -1, self.config.head_dim).swapaxes(1, 2)


@lru_cache(maxsize=8)
def step_names(config: LlamaConfig) -> list[str]:
    """The parameters as the compiled step wants them (csrc/cpu/decode_llama.cpp): None for what there is not."""
    def layer(name: str) -> list[str]:
        return [f"{name}.weight", f"{name}.bias"]
    before_1, after_1, before_2, after_2 = NORMS.get(config.family, USUAL_NORMS)
    names = [EMBEDDING]
    for at in (f"model.layers.{i}" for i in range(config.n_layer)):
        names += [f"{at}.{before_1}.weight", *layer(f"{at}.self_attn.q_proj"), *layer(f"{at}.self_attn.k_proj"),
                  *layer(f"{at}.self_attn.v_proj"), f"{at}.self_attn.q_norm.weight", f"{at}.self_attn.k_norm.weight",
                  *layer(f"{at}.self_attn.o_proj"), f"{at}.{after_1}.weight", f"{at}.{before_2}.weight",
                  *layer(f"{at}.mlp.gate_proj"), *layer(f"{at}.mlp.up_proj"), *layer(f"{at}.mlp.down_proj"),
                  f"{at}.{after_2}.weight"]
    return [*names, "model.norm.weight", EMBEDDING if config.tied else HEAD]


@lru_cache(maxsize=8)
def angles(config: LlamaConfig, dtype: np.dtype) -> tuple[Array, Array]:
    """cos and sin of every position, (block_size, HS / 2): made once for all models of a shape."""
    return rope_angles(config, np.arange(config.block_size), dtype)


def initialise(config: LlamaConfig, seed: int, dtype: DTypeLike) -> Params:
    """Matrices normal, norms 1, biases 0. Each tensor draws from its own generator, keyed by its place: the same seed
    gives the same weights in every dtype."""
    params = Params(llama_shapes(config), dtype)
    for position, name in enumerate(llama_shapes(config)):
        view = params[name]
        if view.ndim == 2:
            draw = np.random.default_rng((seed, position)).standard_normal(view.shape)
            view[:] = deviation(name, config) * draw
        elif not name.endswith("bias"):
            view[:] = 0 if config.family in ("gemma", "gemma2") else 1          # theirs count from 1
    return params
