"""Is this model what it claims to be? Properties that every GPT must have, checked on a run, with figures.

Nothing is assumed about how well the model was trained: the tokens are drawn at random from its vocabulary, and each
check compares the model with itself (in another batch, through the KV cache, on other threads, after saving ...), or
with the reference ops, or with transformers. What the compiled kernels promise in float32 must hold bit for bit;
where a BLAS or a kernel of one's own does a GEMM, or a sum is regrouped, within a tolerance that is told. The run's
files are only read: what has to be written is written into a temporary directory.
"""
import re
import shutil
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..config import TrainConfig
from ..kernels import select as registry
from ..kernels.select import OPS, functions, select
from ..models.adapted import CONFIG as ADAPTER_CONFIG
from ..models.adapted import FOLDER, load_adapter
from ..models.load import load_model
from ..models.params import Params
from ..models.pretrained import read_json
from ..models.quantized import is_quantized, save_quantized
from ..progress import Report
from ..storage.atomic import AnyPath
from ..train.checkpoint import STATE, restore, save
from ..train.loop import one_step
from ..train.memory import free_bytes
from ..train.nonfinite import Named
from ..train.optim import AdamW

Array = np.ndarray
USED = ("embedding", "layernorm", "residual_layernorm", "linear", "attention", "attention_decode", "mlp", "head",
        "linear_cross_entropy")                             # ops that a GPT runs on
TOKENS = 129                                                # of a sequence: one more than a tile of any kernel
WORK = 2e10                                                 # operations that finding a causal leak may take, about
ROWS = 4
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}             # of the largest number: rounding in another order
BF16 = 3e-2                                                 # GEMMs in bfloat16, 8 bits of mantissa


class Subject(NamedTuple):
    """What is verified, and on what."""

    model: Any
    directory: Path | None                                  # it came from
    tokens: Array                                           # (ROWS, T) int
    targets: Array                                          # (ROWS, T) int, -1 where ignored: more in each row

    @property
    def regrouped(self) -> float:
        """The tolerance of the same numbers summed in another order."""
        return TOLERANCE[self.dtype]

    @property
    def same_ops(self) -> float:
        """0, for bit for bit, where the compiled float32 kernels promise it; else the tolerance."""
        return 0 if self.sources <= {"cpu", "cpu/bf16"} and self.dtype == "float32" else self.regrouped

    @property
    def other_ops(self) -> float:
        """The tolerance of the same formulas in other kernels."""
        return BF16 if "cpu/bf16" in self.sources else self.regrouped

    @property
    def sources(self) -> set[str]:
        return {self.model.ops.backends[op] for op in USED}

    @property
    def dtype(self) -> str:
        return str(self.model.params["ln_f.weight"].dtype)


class Finding(NamedTuple):
    """What a check found; passed is None where it was skipped. layer: where a fault was seen first."""

    passed: bool | None
    figure: str
    layer: str | None = None


def verify(directory: AnyPath, backend: str | dict = "auto", progress: Report | None = None) -> list[dict]:
    """Check the model of a run directory, or of one of transformers; returns a dict for each property."""
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: there is no such directory; a model's holds config.json and its weights")
    return verify_model(load_model(directory, select(backend)), directory, progress)


def verify_model(model: Any, directory: AnyPath | None = None, progress: Report | None = None) -> list[dict]:
    """The same for a model in memory, and the directory that it came from."""
    subject, rows = subject_of(model, directory), []
    for done, check in enumerate(CHECKS):
        if progress:
            progress(done, len(CHECKS), name_of(check))
        started = time.perf_counter()
        found = finding(check, subject)
        rows.append({"check": name_of(check), **found._asdict(), "seconds": round(time.perf_counter() - started, 3)})
    return rows


def subject_of(model: Any, directory: AnyPath | None = None) -> Subject:
    """The model with random tokens from its vocabulary: the last target of row 0 is ignored, the last two of row 1..."""
    T = min(TOKENS, model.config.block_size)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (ROWS, T + 1))
    ignored = np.arange(T) >= T - np.minimum(np.arange(1, ROWS + 1), T - 1)[:, None]
    return Subject(model, Path(directory) if directory else None, np.ascontiguousarray(tokens[:, :-1]),
                   np.where(ignored, -1, tokens[:, 1:]))


def finding(check: Callable, subject: Subject) -> Finding:
    """What a check finds; an error in it is a property that does not hold."""
    if check in TRAINING:
        if not isinstance(subject.model.params, Params):
            return Finding(None, "skipped: quantized matrices are for generating, they have no gradients")
        needed, free = TRAINING[check] * subject.model.params.flat.nbytes, free_bytes()
        if free is not None and needed > free:
            return Finding(None, f"skipped: it takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
    try:
        with np.errstate(all="ignore"):
            return check(subject)
    except MemoryError:
        return Finding(None, "skipped: not enough memory")
    except Exception as error:                      # whatever a broken model raises
        return Finding(False, f"{type(error).__name__}: {error}")


def name_of(check: Callable) -> str:
    return check.__name__.replace("_", " ")


# ---- comparing ----------------------------------------------------------------------------------------------------

def compare(parts: dict[str, tuple[Any, Any]], tolerance: float) -> Finding:
    """{what: (got, want)}, bit for bit if tolerance is 0, else by the share of the largest number of each."""
    pairs = {what: (np.asarray(got), np.asarray(want)) for what, (got, want) in parts.items()}
    numbers, worst = sum(want.size for _, want in pairs.values()), 0.0
    for what, (got, want) in pairs.items():
        if got.shape != want.shape:
            return Finding(False, f"{what}: shape {got.shape}, expected {want.shape}")
        errors = np.abs(got - want) / max(float(np.abs(want).max(initial=0)), 1e-30)
        wrong = different(got, want) if tolerance == 0 else ~(errors <= tolerance)
        if wrong.any():
            at = [int(i) for i in np.argwhere(wrong)[0]] if wrong.ndim else ""
            return Finding(False, f"{what}: {int(wrong.sum()):,} of {want.size:,} numbers differ, by up to "
                           f"{float(np.abs(got - want).max()):.2g}, first at {at}" + stated(tolerance))
        worst = max(worst, float(errors.max(initial=0)))
    return Finding(True, f"{numbers:,} numbers " + (
        f"within {worst:.1e} of the largest{stated(tolerance)}" if tolerance else "bit-identical"))


def stated(tolerance: float) -> str:
    return f" (tolerance {tolerance:.0e})" if tolerance else ""


def different(one: Array, other: Array) -> Array:
    """Where two arrays of one shape differ in their bits."""
    kind = f"u{one.dtype.itemsize}"
    return np.ascontiguousarray(one).view(kind) != np.ascontiguousarray(other).view(kind)


def gradients(got: Params, want: Params) -> dict[str, tuple[Array, Array]]:
    return {f"gradient of {name}": (got[name], want[name]) for name in want}


def summed(model: Any, tokens: Array, targets: Array, rows: Any, grads: Params | None = None) -> tuple[float, Params]:
    """Loss and gradients of some rows as micro-batches of one, accumulated into `grads`, over the count of all rows."""
    grads, loss, count = grads or model.params.zeros_like(), 0.0, int((targets != -1).sum())
    for row in rows:
        loss += model.loss_and_grads(tokens[row:row + 1], targets[row:row + 1], grads=grads, count=count)[0]
    return loss, grads


# ---- what a token may see -----------------------------------------------------------------------------------------

class Output(NamedTuple):
    """What an op gave in a forward pass, and the layer it worked for."""

    layer: str
    array: Array                                            # (T, ...)


def outputs(model: Any, tokens: Array, targets: Array, params: dict | None = None) -> list[Output]:
    """Every op's output in order, of `forward` and `losses` on one row of tokens; at the end logits and losses."""
    seen: list[Output] = []
    watched, last = copy(model), [""]
    watched.params = {name: Named(name, value) if type(value) is np.ndarray else value
                      for name, value in dict(model.params, **(params or {})).items()}
    watched.ops = model.ops._replace(**{
        functions(spec)[0]: recorded(getattr(model.ops, functions(spec)[0]), spec.name, last, seen, tokens.shape[1])
        for spec in OPS.values() if spec.name in {*USED, "gelu", "dropout"}})
    logits = watched.forward(tokens)[0]
    losses = watched.losses(tokens, targets)[0]
    return [*seen, Output("logits", logits[0]), Output("loss", losses)]


def recorded(function: Callable, op: str, last: list[str], seen: list[Output], T: int) -> Callable:
    """An op that writes down its outputs, and the layer by the parameters it is given (or the op before was)."""
    def call(*args: Any, **settings: Any) -> Any:
        names = [arg.name for arg in args if isinstance(arg, Named)]
        last[:] = [layer_of(op, names[0])] if names else [f"{last[0].split(' ')[0].rpartition('.')[0]} ({op})"]
        result = function(*(np.asarray(arg) if isinstance(arg, Named) else arg for arg in args), **settings)
        out = result if op in ("head", "attention_decode") else result[0]
        seen.extend(Output(last[0], np.asarray(part).reshape(T, -1))
                    for part in (out if isinstance(out, tuple) else (out,)))
        return result
    return call


def layer_of(op: str, name: str) -> str:
    """h.0.attn.c_attn.weight -> "h.0.attn.c_attn (linear)"; the embedding and the head are layers of their own."""
    layer = re.sub(r"\.(weight|bias)$", "", name) if name.startswith(("h.", "ln_f")) else ""
    return f"{layer} ({op})" if layer else op


def causal(s: Subject) -> Finding:
    """No output before token t changes by a bit when the tokens from t on do: in each layer, for every t that is
    tried."""
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
        blind += not different(before[-2].array[t:], after[-2].array[t:]).any()
    if leaks:
        return leak(leaks, f"leak for {len(leaks)} of {len(places)} positions")
    if blind:
        return Finding(False, f"other tokens change no logits at {blind} of {len(places)} positions: the model is "
                       "blind, so nothing is known of leaks")
    return Finding(True, f"{len(places)} positions, outputs before them bit-identical in {len(before)} ops")


def positions_tried(s: Subject) -> list[int]:
    """All of a small model, some of a large one; the first and the last are among them."""
    T = s.tokens.shape[1]
    size = sum(array.size for name, value in s.model.params.items() for _, (array, _) in leaves(name, value, value))
    count = int(min(T - 1, max(4, WORK / (4 * T * size))))
    return sorted({int(t) for t in np.linspace(1, T - 1, count)})


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


def positions(s: Subject) -> Finding:
    """The token at t gets row t of wpe and no other: another row t changes the embedding at t and nothing before."""
    tokens, targets, wpe = s.tokens[:1], s.targets[:1], s.model.params["wpe.weight"]
    before, T = outputs(s.model, tokens, targets), s.tokens.shape[1]
    places, leaks = sorted({0, T // 2, T - 1}), []
    for t in places:
        changed = wpe.copy()
        changed[t] += 1
        after = outputs(s.model, tokens, targets, {"wpe.weight": changed})
        leaks += first_difference(before, after, slice(0, t), f"with another row {t} of wpe")
        leaks += first_difference(before[:1], after[:1], slice(t + 1, T), f"with another row {t} of wpe")
        if not different(before[0].array[t], after[0].array[t]).any():
            leaks.append((0, Finding(False, f"embedding: token {t} does not get row {t} of wpe", "embedding")))
    if leaks:
        return leak(leaks, "positions are shifted")
    return Finding(True, f"tokens {', '.join(map(str, places))} of {T} get their own rows of wpe")


# ---- the same numbers on every code path --------------------------------------------------------------------------

def cached_decoding(s: Subject) -> Finding:
    """Reading tokens through the KV cache, in pieces, after rolling back, rows apart: the logits of `forward`."""
    T, model = s.tokens.shape[1], s.model
    tokens = s.tokens[:3]
    want, half = model.forward(tokens)[0], T // 2
    cache, ends = model.new_cache(3), [0, *range(half, min(half + 4, T)), T]
    pieces = [model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:]) if a < b]
    parts = {"in pieces": (np.concatenate(pieces, axis=1), want)}
    cache.truncate(half)
    model.decode((tokens[:, half:] + 1) % model.config.vocab_size, cache)
    cache.truncate(half)
    parts["after rolling back"] = (model.decode(tokens[:, half:], cache), want[:, half:])
    cache.reset([0, 2])
    cache.truncate([T, half, T])
    read = model.decode(tokens[2:, :half], cache, rows=[2]) if half else want[2:, :0]
    parts["a row by itself"] = (read, want[2:, :half])
    parts["rows in another order"] = (model.decode(tokens[[2, 1], half:], cache, rows=[2, 1]), want[[2, 1], half:])
    return compare(parts, BF16 if "cpu/bf16" in s.sources else s.same_ops)     # decoding multiplies in float32


def batch_invariance(s: Subject) -> Finding:
    """A row alone has the logits and losses that it has in a batch."""
    logits, losses = s.model.forward(s.tokens)[0], s.model.losses(s.tokens, s.targets)[0].reshape(s.tokens.shape)
    parts = {}
    for row in range(len(s.tokens)):
        tokens, targets = s.tokens[row:row + 1], s.targets[row:row + 1]
        parts[f"logits of row {row}"] = (s.model.forward(tokens)[0][0], logits[row])
        parts[f"losses of row {row}"] = (s.model.losses(tokens, targets)[0], losses[row])
    return compare(parts, s.same_ops)


def padding_invariance(s: Subject) -> Finding:
    """What is appended to fill a row, with targets to ignore, changes none of its losses and has none."""
    tokens, targets, T = s.tokens.copy(), s.targets.copy(), s.tokens.shape[1]
    lengths = [max(1, T * (row + 1) // (len(tokens) + 1)) for row in range(len(tokens))]
    for row, n in enumerate(lengths):
        tokens[row, n:], targets[row, n:] = 0, -1
    losses = s.model.losses(tokens, targets)[0].reshape(tokens.shape)
    parts = {f"losses of row {row}": (losses[row, :n], s.model.losses(s.tokens[row:row + 1, :n],
                                                                      targets[row:row + 1, :n])[0])
             for row, n in enumerate(lengths)}
    filling = {f"the filling of row {row}": (losses[row, n:], 0 * losses[row, n:]) for row, n in enumerate(lengths)}
    return compare(parts | filling, s.same_ops)


def packing_invariance(s: Subject) -> Finding:
    """Documents packed into one row have the losses that they have alone."""
    T = s.tokens.shape[1]
    lengths = [max(1, T // 3), T, 1, max(1, T // 2)]
    cut = [(s.tokens[row:row + 1, :n], s.targets[row:row + 1, :n]) for row, n in enumerate(lengths)]
    packed = [np.concatenate(parts, axis=1) for parts in zip(*cut)]
    losses = np.split(s.model.losses(*packed, lengths=lengths)[0], np.cumsum(lengths)[:-1])
    return compare({f"losses of document {i}": (losses[i], s.model.losses(*alone)[0]) for i, alone in enumerate(cut)},
                   s.same_ops)


def thread_invariance(s: Subject) -> Finding:
    """One thread and two (and three) compute the same bits, forward and backward."""
    kernels = registry._cpp
    if kernels is None or not any(source.startswith("cpu") for source in s.sources):
        return Finding(None, "skipped: NumPy's BLAS has threads of its own, which are not set from here")
    before, found = kernels.max_threads(), []
    try:
        for count in (1, 2, 3):
            kernels.set_threads(count)
            found.append(s.model.loss_and_grads(s.tokens, s.targets))
    finally:
        kernels.set_threads(before)
    parts: dict[str, tuple[Any, Any]] = {}
    for count, (loss, grads) in enumerate(found[1:], 2):
        parts[f"loss on {count} threads"] = (loss, found[0][0])
        parts |= {f"{what} on {count} threads": pair for what, pair in gradients(grads, found[0][1]).items()}
    return compare(parts, s.same_ops)


def reference_ops(s: Subject) -> Finding:
    """The logits are those of the reference, NumPy's ops."""
    if s.sources == {"numpy"}:
        return Finding(None, "skipped: the model runs on the reference itself")
    rows = s.tokens[:1]
    return compare({"logits": (s.model.forward(rows)[0], s.model.on(select("numpy")).forward(rows)[0])}, s.other_ops)


def transformers(s: Subject) -> Finding:
    """The logits are those of transformers on the same files."""
    if s.directory is None:
        return Finding(None, "skipped: the model is in memory only")
    if is_quantized(s.directory):
        return Finding(None, "skipped: int8 matrices are a format of our own")
    try:
        import torch
        from transformers import GPT2LMHeadModel
    except ImportError as error:
        return Finding(None, f"skipped: {error.name or 'transformers'} is not installed")
    theirs, rows = GPT2LMHeadModel.from_pretrained(s.directory, local_files_only=True).float().eval(), s.tokens[:1]
    with torch.no_grad():
        want = theirs(torch.from_numpy(rows)).logits.numpy()
    return compare({"logits": (s.model.forward(rows)[0], want)}, s.other_ops)


def adapter(s: Subject) -> Finding:
    """The base with the run's LoRA adapter has the logits of the merged model."""
    if s.directory is None or not (s.directory / FOLDER / ADAPTER_CONFIG).exists():
        return Finding(None, "skipped: the run has no adapter")
    name = read_json(s.directory / FOLDER / ADAPTER_CONFIG).get("base_model_name_or_path") or "which is not recorded"
    places = [folder / Path(name).name for folder in (s.directory, *s.directory.resolve().parents[:2])]
    base = next((place for place in (Path(name), *places) if place.is_dir()), None)
    if base is None:
        return Finding(None, f"skipped: its base model, {name}, is not there")
    adapted, rows = load_adapter(load_model(base, select(s.model.ops.backends)), s.directory / FOLDER), s.tokens[:1]
    return compare({"logits": (s.model.forward(rows)[0], adapted.model().forward(rows)[0])}, s.other_ops)


# ---- training -----------------------------------------------------------------------------------------------------

def accumulation(s: Subject) -> Finding:
    """Micro-batches of one row add up to the loss and the gradients of the big batch, whose mean is over tokens."""
    loss, grads = s.model.loss_and_grads(s.tokens, s.targets)
    total, accumulated = summed(s.model, s.tokens, s.targets, range(ROWS))
    return compare({"loss": (total, loss)} | gradients(accumulated, grads), s.regrouped)


def rank_invariance(s: Subject) -> Finding:
    """Micro-batches dealt over 2, 3 or 4 ranks, whose gradients are then added, give the gradients of one rank."""
    loss, grads = summed(s.model, s.tokens, s.targets, range(ROWS))
    parts: dict[str, tuple[Any, Any]] = {}
    for ranks in (2, 3, 4):
        total, together = 0.0, s.model.params.zeros_like()
        for rank in range(ranks):
            part, share = summed(s.model, s.tokens, s.targets, range(rank, ROWS, ranks))
            total, together.flat[:] = total + part, together.flat + share.flat
        parts |= {f"loss of {ranks} ranks": (total, loss)}
        found = compare(parts | gradients(together, grads), s.regrouped)
        if not found.passed:
            return found._replace(figure=f"{ranks} ranks: {found.figure}")
    return found._replace(figure="2, 3 and 4 ranks, in one process: " + found.figure)


def tied_weights(s: Subject) -> Finding:
    """wte is the head: the same memory, logits and losses follow its rows, and both gradients are added."""
    tokens, wte, last = s.tokens[:1] // 2, s.model.params["wte.weight"], s.model.config.vocab_size - 1
    (logits, losses), read = head_of(s.model, tokens, last)
    apart = [name for name, weight in read.items() if not np.shares_memory(weight, wte)]
    if apart:
        return Finding(False, f"{', '.join(apart)}: reads another matrix than wte")
    changed = copy(s.model)
    changed.params = dict(s.model.params, **{"wte.weight": wte.copy()})
    changed.params["wte.weight"][last] = np.random.default_rng(1).standard_normal(wte.shape[1])
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

    watched = with_ops(model, **{name: noting(name) for name in ("embedding_forward", "head",
                                                                 "linear_cross_entropy_forward")})
    losses = watched.losses(tokens, np.full_like(tokens, token))[0]
    return (watched.forward(tokens)[0][..., token], losses), read


def with_ops(model: Any, **changed: Callable) -> Any:
    """The same model with other functions among its ops."""
    other = copy(model)
    other.ops = model.ops._replace(**changed)
    return other


def three_gradients(model: Any, tokens: Array, targets: Array) -> tuple[Array, Array, Array]:
    """The gradient of wte, the part of it that comes through the head, and the part through the embedding."""
    def no_embedding(dout: Array, cache: Any, into: Any = None) -> None:
        """The embedding's backward, of which nothing is wanted."""

    def no_head(dout: Array, cache: Any, into: Any = None) -> Any:
        return model.ops.linear_cross_entropy_backward(dout, cache, into=(None,))

    models = (model, with_ops(model, embedding_backward=no_embedding),
              with_ops(model, linear_cross_entropy_backward=no_head))
    whole, head, embedding = (each.loss_and_grads(tokens, targets)[1]["wte.weight"] for each in models)
    return whole, head, embedding


def unused_tokens(s: Subject) -> Finding:
    """No gradient at all, exactly 0: of the embeddings of tokens and positions that do not occur, of ignored targets."""
    T = max(1, s.tokens.shape[1] // 2)
    tokens, targets = np.ascontiguousarray(s.tokens[:, :T] // 2), np.ascontiguousarray(s.targets[:, :T])
    _, _, wte = three_gradients(s.model, tokens, targets)
    rows = np.setdiff1d(np.arange(s.model.config.vocab_size), tokens)
    wrong = rows[np.any(wte[rows] != 0, axis=1)]
    if len(wrong):
        return Finding(False, f"row {wrong[0]} of wte has a gradient, though token {wrong[0]} does not occur")
    loss, grads = s.model.loss_and_grads(tokens, targets)
    places = np.flatnonzero(np.any(grads["wpe.weight"] != 0, axis=1))
    if len(places) and places[-1] >= T:
        return Finding(False, f"row {places[-1]} of wpe has a gradient, though there are {T} tokens")
    loss, grads = s.model.loss_and_grads(tokens, np.full_like(targets, -1))
    wrong = [name for name in grads if grads[name].any()]
    if wrong or loss:
        return Finding(False, f"with all targets ignored the loss is {loss:.3g}; gradients: {', '.join(wrong) or 0}")
    return Finding(True, f"exactly 0 for {len(rows):,} tokens and {len(grads['wpe.weight']) - T:,} positions that do "
                   "not occur, and for ignored targets")


def dropout_determinism(s: Subject) -> Finding:
    """One key, one mask: the same loss and gradients; another seed, step or micro-batch draws another."""
    rate, model = s.model.config.dropout or 0.1, copy(s.model)
    model.config = replace(s.model.config, dropout=rate)
    (loss, grads), (again, same) = (model.loss_and_grads(s.tokens, s.targets, key=(0, 1, 2)) for _ in range(2))
    others = [model.losses(s.tokens, s.targets, key=key)[0].sum()
              for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 1, 2))]
    if len(set(map(float, others))) < 4:
        return Finding(False, "another seed, step or micro-batch drops the same activations")
    found = compare({"loss": (again, loss)} | gradients(same, grads), 0)
    return found._replace(figure=f"rate {rate}: {found.figure}")


def save_and_load(s: Subject) -> Finding:
    """A model that is saved and loaded is the same, bit for bit."""
    with TemporaryDirectory() as folder:
        if isinstance(s.model.params, Params):
            s.model.save_pretrained(folder)
        else:
            save_quantized(folder, s.model)
        loaded = type(s.model).from_pretrained(folder, s.model.ops, s.dtype)
        return compare({what: pair for name, weight in s.model.params.items()
                        for what, pair in leaves(name, loaded.params[name], weight)}, 0)


def leaves(name: str, got: Any, want: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The arrays of a weight: itself, or a quantized one's values and scales."""
    if isinstance(want, tuple):
        yield from ((f"{name} {field}", pair) for field, *pair in zip(want._fields, got, want) if pair[1] is not None)
    else:
        yield name, (got, want)


def resume(s: Subject) -> Finding:
    """A step after saving and loading a checkpoint is the step of the run that was never stopped, to the last bit.

    From the run's own checkpoint (RUN/last, which is read), if it has one.
    """
    learner, optimizer, state = learner_of(s)
    data = SimpleNamespace(batch=lambda step, micro: (s.tokens, s.targets))
    config = TrainConfig(batch_size=ROWS, lr=1e-3, min_lr=1e-3, warmup=0, steps=state["step"] + 2)
    one_step(learner, optimizer, data, config, state)
    state["step"] += 1
    with TemporaryDirectory() as folder:
        needed, free = 4 * learner.params.flat.nbytes, shutil.disk_usage(folder).free
        if needed > free:
            return Finding(None, f"skipped: it takes {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} are free")
        save(Path(folder), learner, optimizer, state, None)
        one_step(learner, optimizer, data, config, state)
        want = digests(learner, optimizer)
        del learner, optimizer
        learner, optimizer, _ = learner_of(s, begun=False)
        state = restore(Path(folder), learner, optimizer, state, say=lambda text: None)
    one_step(learner, optimizer, data, config, state)
    wrong = [name for name, digest in digests(learner, optimizer).items() if digest != want[name]]
    if wrong:
        return Finding(False, f"{len(wrong)} of {len(want)} tensors differ after resuming: {', '.join(wrong[:3])}")
    return Finding(True, f"step {state['step'] + 1:,}: weights and moments bit-identical, {len(want)} tensors")


def learner_of(s: Subject, begun: bool = True) -> tuple[Any, AdamW, dict]:
    """A copy of the model that may be trained (or fresh adapters on it), with its optimizer and state: begun where the
    run's checkpoint ends, if it has one."""
    run = s.directory.resolve().parent if s.directory and (s.directory / STATE).exists() else s.directory
    last = run / "last" if run else None
    if last and (last / FOLDER).is_dir():
        learner = load_adapter(s.model, last / FOLDER)
    else:
        learner = copy(s.model)
        learner.params = s.model.params.astype(s.dtype)
    optimizer = AdamW(learner.params, ops=learner.ops)
    state = {"step": 0, "seed": 0, "data": "random tokens", "settings": {}, "best": {"step": 0}}
    if begun and run and last and (last / STATE).exists():
        found = read_json(last / STATE)
        mine = {"settings": found.get("settings", {}), "data": found.get("data"), "seed": found.get("seed")}
        state["step"] = restore(run, learner, optimizer, mine, say=lambda text: None)["step"]
    return learner, optimizer, state


def digests(learner: Any, optimizer: AdamW) -> dict[str, bytes]:
    """{tensor: digest} of weights and both moments: what two runs are compared by, without the memory of both."""
    tensors = {"": learner.params, "first moment of ": optimizer.m, "second moment of ": optimizer.v}
    return {what + name: blake2b(array, digest_size=16).digest()
            for what, params in tensors.items() for name, array in params.items()}


CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    causal, positions, cached_decoding, batch_invariance, padding_invariance, packing_invariance, thread_invariance,
    rank_invariance, accumulation, tied_weights, unused_tokens, dropout_determinism, save_and_load, resume, adapter,
    reference_ops, transformers)
TRAINING: dict[Callable, int] = {                   # checks that train -> copies of the parameters in memory meanwhile
    thread_invariance: 3, rank_invariance: 4, accumulation: 2, tied_weights: 4, unused_tokens: 4,
    dropout_determinism: 2, resume: 4}


def verdict_page(rows: list[dict]) -> str:
    """The rows as a table, and how many passed."""
    words = {True: "PASS", False: "FAIL", None: "skip"}
    lines = [f"{words[row['passed']]}  {row['check']:<20}  {row['figure']}" for row in rows]
    counts = {word: sum(row["passed"] is passed for row in rows) for passed, word in words.items()}
    return "\n".join([*lines, f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['skip']} skipped"])
