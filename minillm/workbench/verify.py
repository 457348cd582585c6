"""Is this model what it claims to be? Properties that every model must have, checked on a run, with figures.

Nothing is assumed about how well the model was trained: the tokens are drawn at random from its vocabulary, and each
check compares the model with itself (in another batch, through the KV cache, on other threads, after saving ...), or
with the reference ops, or with transformers. What the compiled kernels promise in float32 must hold bit for bit;
where a BLAS or a kernel of one's own does a GEMM, or a sum is regrouped, within a tolerance that is told. The run's
files are only read: what has to be written is written into a temporary directory.
"""
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.select import select
from ..models.load import load_model
from ..models.params import Params
from ..progress import Report
from ..storage.atomic import AnyPath
from ..storage.free_memory import free_bytes
from .properties import causality, code_paths, gradients, saving
from .properties.subject import Finding, Subject, subject_of

CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    causality.causal, causality.positions,
    code_paths.cached_decoding, code_paths.batch_invariance, code_paths.padding_invariance,
    code_paths.packing_invariance, code_paths.thread_invariance,
    gradients.rank_invariance, gradients.accumulation, gradients.tied_weights, gradients.unused_tokens,
    gradients.dropout_determinism, gradients.recomputation,
    saving.save_and_load, saving.resume,
    code_paths.adapter, code_paths.reference_ops, code_paths.transformers)
TRAINING: dict[Callable, int] = {                   # checks that train -> copies of the parameters in memory meanwhile
    code_paths.thread_invariance: 4, gradients.rank_invariance: 4, gradients.accumulation: 3,
    gradients.tied_weights: 4, gradients.unused_tokens: 4, gradients.dropout_determinism: 3,
    gradients.recomputation: 3, saving.resume: 6}


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


def verdict_page(rows: list[dict]) -> str:
    """The rows as a table, and how many passed."""
    words = {True: "PASS", False: "FAIL", None: "skip"}
    lines = [f"{words[row['passed']]}  {row['check']:<20}  {row['figure']}" for row in rows]
    counts = {word: sum(row["passed"] is passed for row in rows) for passed, word in words.items()}
    return "\n".join([*lines, f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['skip']} skipped"])
