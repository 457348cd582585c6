"""GPT-2 with an explicit forward and an explicit backward, line for line in reverse.

    x = embedding(tokens)                                        (B, T, C)
    for each block:  x <- x + proj(attention(qkv(ln_1(x))))
                     x <- x + mlp(ln_2(x))
    loss = cross_entropy(ln_f(x) @ head.T)                       the head is wte again if `tied`

Every addition to the residual stream is followed by a LayerNorm: ln_2 after attention's, the next block's ln_1 (or
ln_f) after the MLP's. So addition and LayerNorm are one op, and the first ln_1 stands alone, before the blocks.

Source: Radford et al. 2019 (GPT-2); names are those of Hugging Face's GPT2LMHeadModel. Dropout, if any, falls on the
embedding and on each sublayer's output. The ops arrive from outside (kernels/select.py), so the same model runs on
NumPy or on compiled kernels, in float32 or float64, and weights may be of any type that weights.py knows.
"""
import math
from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..config import GPTConfig
from ..kernels.device import full_like, on_host, side_of
from ..kernels.select import Ops, select
from ..storage.atomic import AnyPath
from ..tokenizer.roles import EndOfText
from .adapted import GPT2_LAYERS
from .kv_cache import FEW_TOKENS, KVCache, stepwise
from .packing import apart
from .params import HEAD, Params, gpt_shapes, layer, linear, matrix
from .params import on_host as params_on_host
from .pretrained import read_model, write_model
from .quantized import load_weights_as, multiplies_integers
from .weights import derived_again, ops_for, read_dequantized

Array = np.ndarray
Key = tuple[int, int, int]                                                   # (seed, step, micro), of dropout's masks


# The activations of a block: the cache of each op, in forward order; next_norm is the LayerNorm after the block.
Block = namedtuple("Block", "qkv attention proj attention_drop ln_2 mlp mlp_drop next_norm")
# What `hidden` keeps for its backward: the ops it ran on, the shape of its result, caches; `blocks` is emptied there.
# Of each block it has Block, or only the block's input x where `again(i, x)` is to make that once more.
Activations = namedtuple("Activations", "ops again shape embedding embedding_drop ln_1 blocks")


class GPT:
    """A GPT-2: `config`, `params` (one flat buffer with views) and the `ops` it runs on.

    recompute: keep of each block its input only, and make the other activations again when the backward comes to it.
    That is one more forward, about a twelfth of the memory, and the same bits: an op gives the same for the same input,
    and a dropout mask is a function of its key. Source: Chen et al. 2016 (arXiv 1604.06174), section 4.1.
    """

    recompute = False
    kv_cache = "float"          # or "int8": what `new_cache` makes (kv_cache.py)
    known: int | None = None    # ids from here on, if any, are not the tokenizer's: `decode` gives them no probability
    shapes = staticmethod(gpt_shapes)
    layers = GPT2_LAYERS
    runs_on = ("embedding", "layernorm", "residual_layernorm", "linear", "attention", "attention_decode", "mlp", "head",
               "linear_cross_entropy")                                          # ops, the embedding first

    def __init__(self, config: GPTConfig = GPTConfig(), seed: int = 0, dtype: DTypeLike = np.float32,
                 ops: Ops | None = None, params: Any = None):
        """Fresh GPT-2 initialisation from `seed`, unless `params` are given. `ops` defaults to select("auto")."""
        self.config, self.names = config, tuple(gpt_shapes(config))        # in reading order
        self.params = params if params is not None else initialise(config, seed, dtype)
        self.ops = ops_for(self.params, ops or select("auto"), config.activation)
        self.head = "wte.weight" if config.tied else HEAD
        self.rows_of_tokens = tuple({"wte.weight": 0, self.head: 1})            # tensors with a row for each token
        self.chunked_prefill = read_dequantized(self.ops, self.params["wte.weight"])

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.ops = derived_again(self.params, self.ops, self.config.activation)

    def on(self, ops: Ops, params: Any = None) -> "GPT":
        """The same GPT on other ops; with its own parameters, or others."""
        other = GPT(self.config, ops=ops, params=self.params if params is None else params)
        other.recompute, other.known, other.kv_cache = self.recompute, self.known, self.kv_cache
        return other

    @classmethod
    def from_pretrained(cls, directory: AnyPath, ops: Ops | None = None, dtype: DTypeLike = np.float32,
                        weights: str | None = None) -> "GPT":
        """Load config.json and model.safetensors: ours, or a GPT-2 directory saved by transformers.

        weights: "float32", "bfloat16", "int8" or "int4", the form of matrices kept for generating (quantized.py, whose
        in_panels makes float32 and bfloat16 faster); default: int8 or int4 where `minillm quantize` wrote that, else
        plain arrays of `dtype`.
        """
        return load_weights_as(cls, read_model, directory, ops, dtype, weights)

    def save_pretrained(self, directory: AnyPath, eot_token: EndOfText = None) -> None:
        """Write config.json and model.safetensors, which transformers' GPT2LMHeadModel reads too."""
        write_model(directory, self.config, params_on_host(self.params), eot_token)

    def load_weights(self, directory: AnyPath) -> None:
        """Take the parameters of a directory, in place. Raises ValueError if it holds a model of another shape."""
        take_weights(self, directory, *read_model(directory, self.params.flat.dtype))

    @property
    def takes_weight_copy(self) -> bool:
        """Do all its GEMMs multiply in bfloat16, so that they may read a copy of the weights in that type?"""
        backends = {self.ops.backends[op] for op in ("linear", "mlp", "linear_cross_entropy")}
        return len(backends) == 1 and backends.pop().endswith("/bf16")

    def forward(self, tokens: Array) -> tuple[Array, tuple]:
        """tokens (B, T) int -> logits (B, T, V), cache. Raises ValueError for a bad token or T > block_size."""
        x, caches = self.hidden(tokens)
        return self.ops.head(x, self.params[self.head]), (x, caches)            # (B, T, C) @ (C, V)

    def loss_and_grads(self, tokens: Array, targets: Array, ignore_index: int = -1, key: Key | None = None,
                       grads: Params | None = None, count: int | None = None,
                       lengths: list[int] | None = None) -> tuple[float, Params]:
        """Mean loss over the valid targets, and the gradient of every parameter.

        tokens, targets: (B, T) int; targets equal to ignore_index do not count. key: (seed, step, micro) for
        dropout, None for none. grads: Params to add to (default: fresh zeros). count: what the summed loss is
        divided by (default: the number of valid targets); give the count of all micro-batches to accumulate, and the
        losses and gradients simply add up to those of the big batch. lengths: of the documents in a packed row (see
        `losses`). Returns loss (float), grads (Params).
        """
        losses, caches = self.losses(tokens, targets, ignore_index, key, lengths)
        count = count or max(1, int((on_host(targets) != ignore_index).sum()))
        dlosses = full_like(losses, 1 / count)
        return float(losses.sum()) / count, self.backward(dlosses, caches, grads)

    def losses(self, tokens: Array, targets: Array, ignore_index: int = -1, key: Key | None = None,
               lengths: list[int] | None = None) -> tuple[Array, list]:
        """Loss of every token in nats, 0 where ignored: tokens, targets (B, T) -> losses (B*T,), caches.

        With lengths, tokens is one row (1, N) of documents of these lengths, which do not see each other.
        caches: a list that `backward` empties.
        """
        check_targets(targets, tokens, self.params)
        x, activations = self.hidden(tokens, key, lengths)
        losses, head = self.ops.linear_cross_entropy_forward(
            x.reshape(-1, x.shape[-1]), matrix(self.params, self.head), targets.reshape(-1), ignore_index)
        return losses, [activations, head]

    def hidden(self, tokens: Array, key: Key | None = None, lengths: list[int] | None = None) -> tuple[Array,
                                                                                                       Activations]:
        """The residual stream after ln_f: tokens (B, T) -> x (B, T, C), Activations. With a key, dropout is on."""
        p, ops = self.params, self.ops if lengths is None else apart(self.ops, lengths)
        check_tokens(tokens, p)
        drop, blocks = self.dropout_at(key), []
        x, embedding = ops.embedding_forward(tokens, p["wte.weight"], p["wpe.weight"])          # (B, T, C)
        x, embedding_drop = drop(x, 0)
        a, ln_1 = ops.layernorm_forward(x, *layer(p, "h.0.ln_1"), self.config.layer_norm_epsilon)
        for i, norm in enumerate(self.norms_after_blocks()):
            start = x
            x, a, block = self.block(i, norm, x, a, ops, drop)
            blocks.append(start if self.recompute else block)
            del block                                                           # else it would live as long as the next
        again = partial(self.block_again, ops, drop)
        return a, Activations(ops, again, a.shape, embedding, embedding_drop, ln_1, blocks)

    def block(self, i: int, norm: str, x: Array, a: Array, ops: Ops, drop: Callable) -> tuple[Array, Array, Block]:
        """Block i and the LayerNorm named `norm` after it.

        The residual stream x and its LayerNorm a, (B, T, C) each -> both after the block, and the caches as Block.
        """
        p, eps = self.params, self.config.layer_norm_epsilon
        a, qkv = ops.linear_forward(a, *linear(p, f"h.{i}.attn.c_attn"))                        # (B, T, 3C)
        a, attention = ops.attention_forward(self.scale_queries(a, i), self.config.n_head)      # (B, T, C)
        a, proj = ops.linear_forward(a, *linear(p, f"h.{i}.attn.c_proj"))
        a, attention_drop = drop(a, 2 * i + 1)
        (x, m), ln_2 = ops.residual_layernorm_forward(x, a, *layer(p, f"h.{i}.ln_2"), eps)
        m, mlp = ops.mlp_forward(m, *linear(p, f"h.{i}.mlp.c_fc"), *linear(p, f"h.{i}.mlp.c_proj"))
        m, mlp_drop = drop(m, 2 * i + 2)
        (x, a), next_norm = ops.residual_layernorm_forward(x, m, *layer(p, norm), eps)
        return x, a, Block(qkv, attention, proj, attention_drop, ln_2, mlp, mlp_drop, next_norm)

    def block_again(self, ops: Ops, drop: Callable, i: int, x: Array) -> Block:
        """The activations of block i once more, from its input x (B, T, C)."""
        a, _ = ops.layernorm_forward(x, *layer(self.params, f"h.{i}.ln_1"), self.config.layer_norm_epsilon)
        return self.block(i, self.norms_after_blocks()[i], x, a, ops, drop)[2]

    def backward(self, dlosses: Array, caches: list, grads: Params | None = None) -> Params:
        """dlosses (B*T,) -> grads: `losses` walked back, line for line.

        Each op adds to the gradients of its parameters, which is why tied weights work. The caches are used up: each is
        free once its op is passed.
        """
        g = grads if grads is not None else self.params.zeros_like()
        da, _ = caches[0].ops.linear_cross_entropy_backward(dlosses, caches.pop(), into=(g[self.head],))
        return self.hidden_backward(da, caches.pop(), g)

    def hidden_backward(self, da: Array, activations: Activations, g: Params) -> Params:
        """`hidden` walked back: da, the gradient of its x -> g, with the gradients of all parameters added."""
        ops, dx, da = activations.ops, None, da.reshape(activations.shape)      # (B*T, C) -> (B, T, C)
        for i, norm in reversed(list(enumerate(self.norms_after_blocks()))):
            kept = activations.blocks.pop()
            kept = (kept if isinstance(kept, Block) else activations.again(i, kept))._asdict()
            dx, dm, *_ = ops.residual_layernorm_backward((dx, da), kept.pop("next_norm"),       # popped: free after it
                                                         into=layer(g, norm))
            dm = self.undrop(dm, kept.pop("mlp_drop"))
            dm, *_ = ops.mlp_backward(dm, kept.pop("mlp"),
                                      into=layer(g, f"h.{i}.mlp.c_fc") + layer(g, f"h.{i}.mlp.c_proj"))
            dx, da, *_ = ops.residual_layernorm_backward((dx, dm), kept.pop("ln_2"), into=layer(g, f"h.{i}.ln_2"))
            da = self.undrop(da, kept.pop("attention_drop"))
            da, *_ = ops.linear_backward(da, kept.pop("proj"), into=layer(g, f"h.{i}.attn.c_proj"))
            da = self.scale_queries(ops.attention_backward(da, kept.pop("attention")), i)       # -> (B, T, 3C)
            da, *_ = ops.linear_backward(da, kept.pop("qkv"), into=layer(g, f"h.{i}.attn.c_attn"))
        da, *_ = ops.layernorm_backward(da, activations.ln_1, into=layer(g, "h.0.ln_1"))
        dx = self.undrop(dx + da, activations.embedding_drop)                   # both branches end in the same x
        ops.embedding_backward(dx, activations.embedding, into=(g["wte.weight"], g["wpe.weight"]))
        return g

    def scale_queries(self, qkv: Array, i: int) -> Array:
        """qkv (B, T, 3C) of block i with its queries times config.query_scale(i), mostly 1. Gradients scale alike."""
        scale = self.config.query_scale(i)
        if scale == 1:
            return qkv
        factors = full_like(qkv[0, 0], 1)                                       # (3C)
        factors[:self.config.n_embd].fill(scale)
        return qkv * factors

    def norms_after_blocks(self) -> list[str]:
        """Names of the LayerNorms that read what block 0, 1, ... leaves: the next block's first, at the end ln_f."""
        return [f"h.{i}.ln_1" for i in range(1, self.config.n_layer)] + ["ln_f"]

    def dropout_at(self, key: Key | None) -> Callable:
        """A function (x, site) -> x, cache that drops with the mask of this key and site, or does nothing."""
        if key is None or self.config.dropout == 0:
            return lambda x, site: (x, None)
        seed, step, micro = key
        sites = 2 * self.config.n_layer + 1
        return lambda x, site: self.ops.dropout_forward(x, self.config.dropout, (seed, step, micro * sites + site))

    def undrop(self, dout: Array, cache: tuple | None) -> Array:
        return dout if cache is None else self.ops.dropout_backward(dout, cache)

    def new_cache(self, batch_size: int) -> KVCache:
        """An empty KV cache for `decode`, with room for batch_size sequences."""
        return KVCache(self.config, batch_size, self.params["ln_f.weight"].dtype, self.kv_cache)

    def decode(self, tokens: Array, cache: KVCache, rows: ArrayLike | None = None, last: bool = False) -> Array:
        """Logits for the tokens that follow those in the KV cache: tokens (B, T) int -> logits (B, T, V).

        Row b of tokens goes on with row rows[b] of the cache (default: all, in order), which grows by T; rows may hold
        different numbers of tokens, and none affects the others' logits. last: only those of the last token,
        (B, 1, V). Equal to the last rows of `forward` on the whole sequence. Raises ValueError for a bad token or row
        and for a row that would outgrow block_size; the cache is then as it was.

        What stands below is the definition. A few tokens take the same steps in compiled calls, with the same bits; so
        does a long prompt where its GEMMs would have to dequantize whole matrices (`chunked_prefill`).
        """
        check_tokens(tokens)
        rows = cache.check_rows(rows, len(tokens))
        p, ops, eps = self.params, self.ops, self.config.layer_norm_epsilon
        few = tokens.size <= FEW_TOKENS or tokens.shape[1] == 1 or self.chunked_prefill
        if few and ops.decode_step and cache.compiled:
            return self.decode_few(tokens, cache, rows, last)
        x = embed(ops, p, tokens, cache.lengths[rows])                                          # (B, T, C)
        for i in range(self.config.n_layer):
            a, _ = ops.layernorm_forward(x, *layer(p, f"h.{i}.ln_1"), eps)
            a, _ = ops.linear_forward(a, *layer(p, f"h.{i}.attn.c_attn"))                       # (B, T, 3C)
            a = cache.attend(ops, i, rows, self.scale_queries(a, i))                            # (B, T, C)
            a, _ = ops.linear_forward(a, *layer(p, f"h.{i}.attn.c_proj"))
            x = x + a
            m, _ = ops.layernorm_forward(x, *layer(p, f"h.{i}.ln_2"), eps)
            m, _ = ops.mlp_forward(m, *layer(p, f"h.{i}.mlp.c_fc"), *layer(p, f"h.{i}.mlp.c_proj"))
            x = x + m
        cache.lengths[rows] += tokens.shape[1]
        if last:
            x = np.ascontiguousarray(x[:, -1:])                                 # (B, T, C) -> (B, 1, C)
        x, _ = ops.layernorm_forward(x, *layer(p, "ln_f"), eps)
        return only_known(ops.head(x, p[self.head]), self.known)                # (B, T, C) @ (C, V)

    def decode_few(self, tokens: Array, cache: KVCache, rows: Array, last: bool) -> Array:
        """`decode` for a few tokens at a time, by the compiled step of all layers at once."""
        c, weights = self.config, [self.params[name] for name in self.names]
        integers = multiplies_integers(self.params[self.head])
        scales = np.array([c.query_scale(i) for i in range(c.n_layer)], np.float32)

        def step(piece: Array, starts: Array, some: Array, count: int) -> Array:
            return self.ops.decode_step(piece, starts, some, weights, cache.keys, cache.values, c.layer_norm_epsilon,
                                        count, scales, c.activation == "gelu", integers, cache.key_scales,
                                        cache.value_scales)
        return only_known(stepwise(step, tokens, cache, rows, last), self.known)


def only_known(logits: Array, known: int | None) -> Array:
    """The logits (B, T, V), in place -inf from id `known` on: a padded vocabulary has rows that no token has."""
    if known is not None:
        logits[..., known:] = -math.inf
    return logits


def embed(ops: Ops, p: Mapping, tokens: Array, starts: Array) -> Array:
    """Token and position embeddings of rows that start at different positions: tokens (B, T) -> (B, T, C)."""
    wte, wpe = p["wte.weight"], p["wpe.weight"]
    if np.all(starts == starts[0]):
        return ops.embedding_forward(tokens, wte, wpe, int(starts[0]))[0]
    return np.concatenate([ops.embedding_forward(tokens[b:b + 1], wte, wpe, int(start))[0]
                           for b, start in enumerate(starts)])


def initialise(config: GPTConfig, seed: int, dtype: DTypeLike) -> Params:
    """GPT-2's initialisation: matrices normal with deviation 0.02, LayerNorm at identity, biases zero.

    The two projections that add to the residual stream are shrunk by sqrt(2 * n_layer), so that its variance does not
    grow with depth (Radford et al. 2019, section 2.3). Each tensor draws from its own generator, keyed by its
    position in reading order: the same seed gives the same weights in every dtype.
    """
    params = Params(gpt_shapes(config), dtype)
    for position, name in enumerate(gpt_shapes(config)):
        view = params[name]
        if view.ndim == 2:
            deviation = 0.02 / math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 0.02
            view[:] = deviation * np.random.default_rng((seed, position)).standard_normal(view.shape)
        elif name.endswith("weight"):
            view[:] = 1
    return params


def take_weights(model: Any, directory: AnyPath, config: Any, params: Params) -> None:
    """Put what was read from a directory into a model, in place. Raises ValueError if it is one of another shape."""
    changed = [name for name, value in vars(config).items() if value != getattr(model.config, name)]
    if changed:
        raise ValueError(f"{directory} holds a different model: {', '.join(changed)} differ")
    model.params.take(params)


def check_targets(targets: Any, tokens: Any, params: Any = None) -> None:
    """Raise ValueError unless targets is an array of the shape of tokens, which are checked, too."""
    check_tokens(tokens, params)
    check_side("targets", targets, params)
    if targets.shape != tokens.shape:
        raise ValueError(f"targets must have shape {tokens.shape}: got {targets.shape}")


def check_side(name: str, ids: Any, params: Any) -> None:
    """Raise ValueError unless ids are an array in the memory that the parameters are in: none is copied in silence."""
    if not side_of(ids):
        raise ValueError(f"{name} must be an array of integers: got {type(ids).__name__}")
    wanted = "the device" if getattr(params, "device", None) else "NumPy"
    if side_of(ids) != wanted:
        raise ValueError(f"{name} must be an array of {wanted}, as the parameters are: got one of {side_of(ids)}")


def check_tokens(tokens: Any, params: Any = None) -> None:
    """Raise ValueError unless tokens is an array (B, T) with at least one token; the embedding checks their values."""
    check_side("tokens", tokens, params)
    if tokens.ndim != 2 or not tokens.size:
        raise ValueError(f"tokens must have shape (B, T), both at least 1: got {tokens.shape}")
