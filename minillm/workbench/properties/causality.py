"""What a token may see: the tokens before it and its own position, in every layer."""
import re
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from ...kernels.select import OPS, functions
from ...train.nonfinite import Named
from .subject import Array, Finding, Subject, different, parameters_of

LAYERS = ("h.", "ln_f", "model.layers.", "model.norm")      # beginnings of names, all but embeddings and heads
WORK = 2e10                                                 # operations that finding a causal leak may take, about


def causal(s: Subject) -> Finding:
    """No output before token t changes by a bit when the tokens from t on do, in any layer."""
    T, V = s.tokens.shape[1], s.model.config.vocab_size
    if T < 2 or V < 2:
        return Finding(None, "skipped: it takes two tokens")
    tokens, targets = s.tokens[:1], s.targets[:1]
    before = outputs(s.model, tokens, targets)
    places = positions_tried(s)
    leaks, blind = [], 0
    for t in places:
        changed = tokens.copy()
        changed[:, t:] = (changed[:, t:] + 1) % V
        after = outputs(s.model, changed, targets)
        leaks += first_difference(before, after, slice(0, t), f"with other tokens from {t} on")
        blind += not different(before[-1].array[t:], after[-1].array[t:]).any()
    if leaks:
        return leak(leaks, f"leak for {len(leaks)} of {len(places)} positions")
    if blind:
        return Finding(False, f"other tokens change no logits at {blind} of {len(places)} positions: the model is "
                       "blind, so nothing is known of leaks")
    return Finding(True, f"{len(places)} positions, outputs before them bit-identical in {len(before)} ops")


def positions_tried(s: Subject) -> list[int]:
    """All of a small model, some of a large one; the first and the last are among them."""
    T = s.tokens.shape[1]
    count = int(min(T - 1, max(4, WORK / (4 * T * parameters_of(s.model)))))
    return sorted({int(t) for t in np.linspace(1, T - 1, count)})


def positions(s: Subject) -> Finding:
    """The token at t gets row t of the positions (wpe, or the angles of rope) and no other: where another row t changes
    what the first op that reads them gives."""
    tokens, T = s.tokens[:1], s.tokens.shape[1]
    what, op = ("wpe", "embedding") if "embedding" in s.model.runs_on else ("the angles", "rope")
    before, places = first_of(op, outputs(s.model, tokens)), sorted({0, T // 2, T - 1})
    for t in places:
        after = first_of(op, outputs(with_other_position(s.model, t), tokens))
        moved = np.flatnonzero(different(before.array, after.array).any(axis=1)).tolist()
        if moved != [t]:
            return Finding(False, f"{before.layer}: row {t} of {what} reaches " + (
                f"the tokens at {', '.join(map(str, moved[:5]))}" if moved else "no token"), before.layer)
    return Finding(True, f"tokens {', '.join(map(str, places))} of {T} get their own rows of {what}")


def first_of(op: str, seen: list["Output"]) -> "Output":
    """What the first call of an op gave."""
    return next(output for output in seen if output.layer in (op, f"{output.layer.partition(' ')[0]} ({op})"))


def with_other_position(model: Any, t: int) -> Any:
    """The model with another row t of wpe, or of rope's cosines."""
    other = copy(model)
    if "embedding" in model.runs_on:
        wpe = model.params["wpe.weight"].copy()
        wpe[t] += 1
        other.params = dict(model.params, **{"wpe.weight": wpe})
    else:
        other.cos = model.cos.copy()
        other.cos[t] += 1
    return other


class Output(NamedTuple):
    """What an op gave in a forward pass, and the layer it worked for."""

    layer: str
    array: Array                                            # (T, ...)


def outputs(model: Any, tokens: Array, targets: Array | None = None) -> list[Output]:
    """Every op's output in order, of `forward` on one row of tokens, and of `losses` if there are targets; at the end
    logits and losses."""
    seen: list[Output] = []
    watched, last = copy(model), [""]
    watched.params = {name: Named(name, value) if type(value) is np.ndarray else value
                      for name, value in model.params.items()}
    watched.ops = model.ops._replace(**{
        functions(spec)[0]: recorded(getattr(model.ops, functions(spec)[0]), spec.name, last, seen, tokens.shape[1])
        for spec in OPS.values() if spec.name in {*model.runs_on, "gelu", "dropout"}})
    logits = Output("logits", watched.forward(tokens)[0][0])
    if targets is not None:
        seen.append(Output("loss", watched.losses(tokens, targets)[0]))
    return [*seen, logits]


def recorded(function: Callable, op: str, last: list[str], seen: list[Output], T: int) -> Callable:
    """An op that writes down its outputs, and the layer by the parameters it is given (or the last op with some was:
    then the layer that this is a part of)."""
    def call(*args: Any, **settings: Any) -> Any:
        names = [arg.name for arg in args if isinstance(arg, Named)]
        last[:] = names[:1] or last
        layer = layer_of(op, names[0] if names else last[0].rpartition(".")[0].rpartition(".")[0])
        result = function(*(np.asarray(arg) if isinstance(arg, Named) else arg for arg in args), **settings)
        out = result if op in ("head", "attention_decode") else result[0]
        seen.extend(Output(layer, np.asarray(part).reshape(T, -1))
                    for part in (out if isinstance(out, tuple) else (out,)))
        return result
    return call


def layer_of(op: str, name: str) -> str:
    """h.0.attn.c_attn.weight -> "h.0.attn.c_attn (linear)"; the embedding and the head are layers of their own."""
    layer = re.sub(r"\.(weight|bias)$", "", name) if name.startswith(LAYERS) else ""
    return f"{layer} ({op})" if layer else op


def first_difference(before: list[Output], after: list[Output], span: slice, how: str) -> list[tuple[int, Finding]]:
    """(which op, Finding) of the first op whose outputs differ within the span of tokens, or nothing."""
    for number, (old, new) in enumerate(zip(before, after)):
        wrong = different(old.array[span], new.array[span])
        if wrong.any():
            at = span.start + int(np.argwhere(wrong)[0][0])
            size = float(np.abs(old.array[span] - new.array[span]).max())
            return [(number, Finding(False, f"{old.layer}: the output at {at} changes by up to {size:.2g} {how}",
                                     old.layer))]
    return []


def leak(leaks: list[tuple[int, Finding]], summary: str) -> Finding:
    """The leak that is first in forward order, of those that were found."""
    first = min(leaks, key=lambda found: found[0])[1]
    return first._replace(figure=f"{summary}, first in {first.figure}")
