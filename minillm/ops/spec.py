"""What the row of an op is made of: each op's file ends with a `SPEC`, and table.py collects them.

To add an op, write minillm/ops/NAME.py (derivation, forward, backward, SPEC) and, for a compiled kernel,
csrc/cpu/NAME.cpp: gradient checks, tests, benchmarks and `minillm info` find it there. CONTRIBUTING.md has the smallest
pair of such files, and tests/ops/test_toy_op.py follows its recipe.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

REAL, FLOAT32 = ("float32", "float64"), ("float32",)
CPU = {"cpu": REAL}                       # the kernels of an op that is compiled in one way


def on_gpu(*steps, dtypes=REAL):
    """The kernels of an op in CUDA, and the same on the emulator: the best, and the steps of its ladder by name."""
    return {"/".join(filter(None, (backend, step))): dtypes for backend in ("cuda", "cudasim") for step in ("", *steps)}


GPU = on_gpu("1_naive")                   # those of an op whose ladder has a naive step and the best


class Dims(NamedTuple):
    """Sizes from which an op makes its sample inputs; with the last three, those of any call, to count its FLOPs."""

    B: int = 2      # batch
    T: int = 5      # tokens in a sequence
    C: int = 8      # width, a multiple of NH
    NH: int = 2     # heads
    V: int = 11     # vocabulary
    OC: int = 0     # columns of a weight: a sample has 4 C
    S: int = 0      # keys that queries attend to: a sample has one query for T keys
    N: int = 0      # parameters: a sample has 12 C^2

    def sampled(self):
        """{name: size} of those that a sample is made from, which is what one asks for and is shown."""
        return dict(zip(self._fields[:5], self))


class Argument(NamedTuple):
    """One array of a C signature: `dweight[C,OC]+=` or `tokens[B,T]:int`."""

    name: str
    shape: tuple                          # sizes by letters, such as ("B", "T", "3C")
    type: str                             # "real" (float or double, as the op's dtype), "int", "uint64" or "double"
    added: bool                           # a result that is added to what the array holds


class Signature(NamedTuple):
    """A C function on raw pointers, in the manner of llm.c: its results, its inputs, then sizes and other numbers."""

    results: tuple
    inputs: tuple
    scalars: tuple

    @classmethod
    def read(cls, text):
        """From "results <- inputs; scalars"."""
        arrays, scalars = text.split(";")
        return cls(*(tuple(Argument(name, tuple(shape.split(",")), kind or "real", bool(added))
                           for name, shape, added, kind in re.findall(r"(\w+)\[([^]]+)\](\+=)?(?::(\w+))?", side))
                     for side in arrays.split("<-")), tuple(scalars.split()))


@dataclass(frozen=True)
class Spec:
    """One op. `sample(rng, dtype, dims)` gives {argument: value} in the order of the signature.

    c: what a C kernel of the op is called with, forward and backward: "results <- inputs; scalars". Sizes are letters
    (B T C NH HS OC V, N rows); a scalar is a size or an argument of the op, and one left out has its sample's value.
    kernels: the compiled ones that exist, {"cpu" or "cpu/variant": dtypes}; so of "cuda" and, the same on the emulator,
    "cudasim". A backend alone is its best; variants such as "cpu/1_naive" are the steps of a ladder.
    torch: the same op by PyTorch, called as torch(the module, **arguments), differentiated by autograd; for an update
    it returns two functions: one step, and what the arrays hold then.
    """

    name: str
    sample: Callable
    differentiable: tuple                 # arguments with a gradient, in the order backward returns them
    bad: tuple                            # (label, argument, value -> wrong value, words the error must hold)
    flops: Callable                       # dims -> (forward, backward)
    c: tuple
    kernels: dict = field(default_factory=dict)
    torch: Callable | None = None
    transposed: tuple = ()                # weights that PyTorch stores (out, in), where ours are (in, out)
    kind: str = "pair"                    # pair: forward and backward; decode: forward only; reduce: an array to a
                                          # number; update: in place
    composite: bool = False               # calls smaller ops, taken from the `ops` it is given
    gathered: tuple = ()                  # arguments of which only as many numbers are read as `out` has
    kept: Callable = lambda args, cache: {}     # the forward's further C results, from the NumPy pair: {name: array}
    shared_gradient: tuple = ()           # arguments whose gradient is one array with another's; backward reads none

    def signatures(self):
        """The C signatures, parsed."""
        return [Signature.read(text) for text in self.c]

    def traffic(self, args, out):
        """Bytes that must move at least, (forward, backward), for arguments and output: each array in once, out
        once."""
        arrays = {name: value for name, value in args.items() if isinstance(value, np.ndarray)}
        if self.kind == "update":
            total = sum(array.nbytes for array in arrays.values())
            return 2 * total - args["grad"].nbytes, 0            # all are read, all but the gradient written
        out = sum(np.asarray(part).nbytes for part in (out if isinstance(out, tuple) else (out,)))
        read = sum(min(a.nbytes, out) if name in self.gathered else a.nbytes for name, a in arrays.items())
        written = sum(arrays[name].nbytes for name in self.differentiable if name in arrays)    # a bias may be missing
        unseen = 2 * sum(arrays[name].nbytes for name in self.shared_gradient)
        return read + out, (read + written + out - unseen if written else 0)


SUFFIXES = {"pair": ("_forward", "_backward"), "decode": ("",), "reduce": ("",), "update": ("_update",)}


def functions(spec):
    """Names of an op's functions: layernorm_forward and layernorm_backward; adamw_update; attention_decode."""
    return [spec.name + suffix for suffix in SUFFIXES[spec.kind]]


def normals(rng, dtype, **shapes):
    """{argument: array of standard normal numbers of that shape}, drawn in this order."""
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def random_targets(rng, d):
    """(B*T,) ids of the vocabulary; every fifth or so is -1, which is ignored."""
    targets = rng.integers(0, d.V, d.B * d.T)
    targets[rng.random(d.B * d.T) < 0.2] = -1
    return targets


def with_last(value):
    """The change that puts `value` into an array's last place."""
    def change(a):
        a = a.copy()
        a.flat[-1] = value
        return a
    return change


CHANGES = {     # what can be wrong with an array, by name
    "narrower": lambda a: np.ascontiguousarray(a[..., :-1]),
    "flatter": lambda a: a.reshape(-1),
    "shorter": lambda a: a[:-1].copy(),
    "too_long": lambda a: np.tile(a, 9),                                  # more tokens than the context window holds
    "integers": lambda a: a.astype("int64"), "floats": lambda a: a.astype("float32"),
    "other_dtype": lambda a: a.astype("float64" if a.dtype == "float32" else "float32"),
    "too_big": with_last(10 ** 6), "negative": with_last(-2),
}


def wrong(argument, *changes, error=None):
    """Rows of an op's `bad`: changes by their names in CHANGES, or values to put in the argument's place. The op must
    raise a ValueError that holds `error` (default: the argument's name)."""
    return tuple((f"{argument} {change}", argument, CHANGES[change], error or argument) if isinstance(change, str) else
                 (f"{argument} = {change}", argument, lambda _, value=change: value, error or argument)
                 for change in changes)
