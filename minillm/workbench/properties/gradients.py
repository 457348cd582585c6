"""Gradients: accumulated in any split, of tied weights, of what does not occur, under dropout, with recomputation."""
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from ...config import GPTConfig
from ...models.params import Params
from .subject import ROWS, Array, Finding, Subject, compare


def accumulation(s: Subject) -> Finding:
    """Micro-batches of one row add up to the loss and the gradients of the big batch, whose mean is over tokens."""
    loss, grads = s.model.loss_and_grads(s.tokens, s.targets)
    total, accumulated = summed(s.model, s.tokens, s.targets, range(ROWS))
    return compare({"loss": (total, loss)} | gradients(accumulated, grads), s.regrouped)


def rank_invariance(s: Subject) -> Finding:
    """Micro-batches dealt over 2, 3 or 4 ranks, whose gradients are then added, give the gradients of one rank."""
    loss, grads = summed(s.model, s.tokens, s.targets, range(ROWS))
    for ranks in (2, 3, 4):
        total, together = 0.0, s.model.params.zeros_like()
        for rank in range(ranks):
            part, share = summed(s.model, s.tokens, s.targets, range(rank, ROWS, ranks))
            total, together.flat[:] = total + part, together.flat + share.flat
        found = compare({"loss": (total, loss)} | gradients(together, grads), s.regrouped)
        if not found.passed:
            return found._replace(figure=f"{ranks} ranks: {found.figure}")
    return found._replace(figure="2, 3 and 4 ranks, in one process: " + found.figure)


def summed(model: Any, tokens: Array, targets: Array, rows: Iterable[int]) -> tuple[float, Params]:
    """Loss and gradients of some rows as micro-batches of one, over the count of all rows."""
    grads, loss, count = model.params.zeros_like(), 0.0, int((targets != -1).sum())
    for row in rows:
        loss += model.loss_and_grads(tokens[row:row + 1], targets[row:row + 1], grads=grads, count=count)[0]
    return loss, grads


def gradients(got: Params, want: Params) -> dict[str, tuple[Array, Array]]:
    return {f"gradient of {name}": (got[name], want[name]) for name in want}


def tied_weights(s: Subject) -> Finding:
    """wte is the head: the same memory, logits and losses follow its rows, and both gradients are added."""
    if len(s.model.rows_of_tokens) > 1:
        return Finding(None, "skipped: the head is a matrix of its own")
    name, = s.model.rows_of_tokens
    tokens, wte, last = s.tokens[:1] // 2, s.model.params[name], s.model.config.vocab_size - 1
    (logits, losses), read = head_of(s.model, tokens, last)
    apart = [name for name, weight in read.items() if not np.shares_memory(weight, wte)]
    if apart:
        return Finding(False, f"{', '.join(apart)}: reads another matrix than wte")
    changed = copy(s.model)
    changed.params = dict(s.model.params, **{name: wte.copy()})
    changed.params[name][last] = np.random.default_rng(1).standard_normal(wte.shape[1])
    after, _ = head_of(changed, tokens, last)
    for what, old, new in (("logits", logits, after[0]), ("losses", losses, after[1])):
        if np.array_equal(old, new):
            return Finding(False, f"{what} of token {last} do not follow row {last} of wte: the head is another matrix")
    grads, of_head, of_embedding = three_gradients(s.model, tokens, s.targets[:1])
    if not (of_head.any() and of_embedding.any()):
        return Finding(False, "wte has no gradient from " + ("the embedding" if of_head.any() else "the head"))
    return compare({"gradient of wte, head plus embedding": (grads, of_head + of_embedding)}, s.regrouped)


def head_of(model: Any, tokens: Array, token: int) -> tuple[tuple[Array, Array], dict[str, Array]]:
    """(the logits of one token, the losses where it is the target), and {op: the wte that it was given}."""
    read = {}

    def noting(name: str) -> Callable:
        def call(*args: Any, **settings: Any) -> Any:
            read[name] = args[1]
            return getattr(model.ops, name)(*args, **settings)
        return call

    watched = with_ops(model, **{name: noting(name) for name in (f"{model.runs_on[0]}_forward", "head",
                                                                 "linear_cross_entropy_forward")})
    losses = watched.losses(tokens, np.full_like(tokens, token))[0]
    return (watched.forward(tokens)[0][..., token], losses), read


def with_ops(model: Any, **changed: Callable) -> Any:
    """The same model with other functions among its ops."""
    other = copy(model)
    other.ops = model.ops._replace(**changed)
    return other


def three_gradients(model: Any, tokens: Array, targets: Array) -> tuple[Array, Array, Array]:
    """The gradient of the embedding, what of it comes through the head, and what through the embedding's op."""
    def no_embedding(dout: Array, cache: Any, into: Any = None) -> None:
        """The embedding's backward, of which nothing is wanted."""

    def no_head(dout: Array, cache: Any, into: Any = None) -> Any:
        return model.ops.linear_cross_entropy_backward(dout, cache, into=(None,))

    def no_head_alone(dout: Array, cache: Any, into: Any = None) -> Any:
        """Of capped logits, whose head is a projection to the vocabulary."""
        is_head = dout.shape[-1] == model.config.vocab_size
        return model.ops.projection_backward(dout, cache, into=(None, None) if is_head else into)

    models = (model, with_ops(model, **{f"{model.runs_on[0]}_backward": no_embedding}),
              with_ops(model, linear_cross_entropy_backward=no_head, projection_backward=no_head_alone))
    name = model.rows_of_tokens[0]
    whole, head, embedding = (each.loss_and_grads(tokens, targets)[1][name] for each in models)
    return whole, head, embedding


def unused_tokens(s: Subject) -> Finding:
    """A gradient of exactly 0 for tokens and positions that do not occur, and for ignored targets."""
    T = max(1, s.tokens.shape[1] // 2)
    tokens, targets = np.ascontiguousarray(s.tokens[:, :T] // 2), np.ascontiguousarray(s.targets[:, :T])
    _, _, wte = three_gradients(s.model, tokens, targets)
    rows = np.setdiff1d(np.arange(s.model.config.vocab_size), tokens)
    wrong_rows = rows[np.any(wte[rows] != 0, axis=1)]
    if len(wrong_rows):
        return Finding(False, f"row {wrong_rows[0]} of wte has a gradient, though that token does not occur")
    loss, grads = s.model.loss_and_grads(tokens, targets)
    wpe = grads["wpe.weight"] if "wpe.weight" in grads else wte[:T]             # a Llama learns no positions
    places = np.flatnonzero(np.any(wpe != 0, axis=1))
    if len(places) and places[-1] >= T:
        return Finding(False, f"row {places[-1]} of wpe has a gradient, though there are {T} tokens")
    more = len(wpe) - T
    loss, grads = s.model.loss_and_grads(tokens, np.full_like(targets, -1))
    wrong = [name for name in grads if grads[name].any()]
    if wrong or loss:
        return Finding(False, f"with all targets ignored the loss is {loss:.3g}; gradients: {', '.join(wrong) or 0}")
    return Finding(True, f"exactly 0 for {len(rows):,} tokens and {max(0, more):,} positions that do "
                   "not occur, and for ignored targets")


def dropout_determinism(s: Subject) -> Finding:
    """One key, one mask: the same loss and gradients; another seed, step or micro-batch draws another."""
    if not has_dropout(s.model):
        return Finding(None, "skipped: the model has no dropout")
    rate, model = s.model.config.dropout or 0.1, copy(s.model)
    model.config = replace(s.model.config, dropout=rate)
    (loss, grads), (again, same) = (model.loss_and_grads(s.tokens, s.targets, key=(0, 1, 2)) for _ in range(2))
    others = [model.losses(s.tokens, s.targets, key=key)[0].sum()
              for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 1, 2))]
    if len(set(map(float, others))) < 4:
        return Finding(False, "another seed, step or micro-batch drops the same activations")
    found = compare({"loss": (again, loss)} | gradients(same, grads), 0)
    return found._replace(figure=f"rate {rate}: {found.figure}")


def has_dropout(model: Any) -> bool:
    return isinstance(model.config, GPTConfig)


def recomputation(s: Subject) -> Finding:
    """train.recompute=true, which makes activations again in the backward, changes no bit of any gradient."""
    calls, found = [0], []
    attention = "attention_forward" if "attention" in s.model.runs_on else "grouped_attention_forward"

    def counted(*args: Any, **settings: Any) -> Any:
        calls[0] += 1
        return getattr(s.model.ops, attention)(*args, **settings)

    model = with_ops(s.model, **{attention: counted})
    if has_dropout(model):
        model.config = replace(model.config, dropout=model.config.dropout or 0.1)
    for model.recompute in (False, True):
        found.append(model.loss_and_grads(s.tokens, s.targets, key=(0, 1, 2)))
    (loss, grads), (again, remade) = found
    layers = s.model.config.n_layer
    if calls[0] != 3 * layers:                                              # a forward, and with recomputation two
        return Finding(False, f"{calls[0]} calls of attention in {layers} layers, with and without: expected "
                       f"{3 * layers}, as each block is made again once")
    return compare({"loss": (again, loss)} | gradients(remade, grads), 0)
