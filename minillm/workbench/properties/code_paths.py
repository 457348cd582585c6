"""The same numbers on every code path: through the KV cache, in any batch, padded, packed, on any number of threads;
and those of the reference ops, of transformers, and of the base with its adapter."""
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels import select as registry
from ...kernels.select import select
from ...models.adapted import CONFIG as ADAPTER_CONFIG
from ...models.adapted import FOLDER, load_adapter
from ...models.load import load_model
from ...models.pretrained import read_json
from ...models.quantized import is_quantized
from .gradients import gradients
from .subject import BF16, Finding, Subject, compare


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
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        return Finding(None, f"skipped: {error.name or 'transformers'} is not installed")
    theirs, rows = AutoModelForCausalLM.from_pretrained(s.directory, local_files_only=True), s.tokens[:1]
    theirs = theirs.float().eval()
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
