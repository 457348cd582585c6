"""What is verified and on what; what a check finds; and comparing arrays by bits or within a tolerance."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...models.quantized import Quantized, multiplies_integers
from ...storage.atomic import AnyPath

Array = np.ndarray
ROWS = 4                                                    # sequences in a batch
TOKENS, FEW_TOKENS = 129, 33                                # of a sequence: one more than a kernel's tile
LARGE = 30_000_000                                          # parameters of a model that is given FEW_TOKENS
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
        """The tolerance of the same numbers summed in another order; where activations are rounded to int8, another
        last bit may round one to the next whole number."""
        return BF16 if any(map(multiplies_integers, self.model.params.values())) else TOLERANCE[self.dtype]

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
        return {self.model.ops.backends[op] for op in self.model.runs_on}

    @property
    def dtype(self) -> str:
        weights = (weight for weight in self.model.params.values() if isinstance(weight, np.ndarray))
        return str(next(weights).dtype)


class Finding(NamedTuple):
    """What a check found; passed is None where it was skipped. layer: where a fault was seen first."""

    passed: bool | None
    figure: str
    layer: str | None = None


def subject_of(model: Any, directory: AnyPath | None = None) -> Subject:
    """The model with random tokens from its vocabulary: the last target of row 0 is ignored, the last 2 of row 1..."""
    T = min(TOKENS if parameters_of(model) < LARGE else FEW_TOKENS, model.config.block_size)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (ROWS, T + 1))
    ignored = np.arange(T) >= T - np.minimum(np.arange(1, ROWS + 1), T - 1)[:, None]
    return Subject(model, Path(directory) if directory else None, np.ascontiguousarray(tokens[:, :-1]),
                   np.where(ignored, -1, tokens[:, 1:]))


def parameters_of(model: Any) -> int:
    """How many numbers the model's weights have."""
    return sum(array.size for name, value in model.params.items() for _, (array, _) in leaves(name, value, value))


def compare(parts: dict[str, tuple[Any, Any]], tolerance: float) -> Finding:
    """{what: (got, want)}, bit for bit if tolerance is 0, else by the share of the largest number of each."""
    pairs = {what: (np.atleast_1d(got), np.atleast_1d(want)) for what, (got, want) in parts.items()}
    numbers, worst = sum(want.size for _, want in pairs.values()), 0.0
    for what, (got, want) in pairs.items():
        if got.shape != want.shape:
            return Finding(False, f"{what}: shape {got.shape}, expected {want.shape}")
        errors = np.abs(got - want) / max(float(np.abs(want).max(initial=0)), 1e-30)
        wrong = different(got, want) if tolerance == 0 else ~(errors <= tolerance)
        if wrong.any():
            at = [int(i) for i in np.argwhere(wrong)[0]]
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


def leaves(name: str, got: Any, want: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The arrays of a weight: itself, or a quantized one's values and scales."""
    if isinstance(want, Quantized):
        yield f"{name} values", (got.values, want.values)
        if want.scales is not None:
            yield f"{name} scales", (got.scales, want.scales)
    else:
        yield name, (got, want)
