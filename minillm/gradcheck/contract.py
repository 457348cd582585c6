"""The contract of an op pair, each clause of it tried: what a numeric derivative alone would never see.

    out, cache = forward(*inputs)           the same bits each time; inputs untouched; out no view of an input
    grads      = backward(dout, cache)      a gradient for each input, of its shape and dtype; dout, cache and inputs
                                            untouched; the same bits each time, also after the forward has run on other
                                            inputs; no view of an input or of the cache; linear in dout: g(0) = 0,
                                            g(a d) = a g(d), g(a d + b e) = a g(d) + b g(e)

A result may share memory with dout (`return dout` is the identity's backward) and a cache with out (exp caches what it
returns): who writes into those changes what is his own. Everything here costs three forwards and six backwards.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

NOISE = 1e3                             # in units of eps of the largest output: above it, not only rounding
LINEAR = {4: 1e-3, 8: 1e-7}             # relative to the largest element, by the size of the dtype


class Pair:
    """forward and backward on fixed inputs and a fixed dout, their results, and what was found wrong (`breaches`)."""

    def __init__(self, forward: Callable, backward: Callable, inputs: Mapping[str, Any], names: Sequence[str],
                 rng: np.random.Generator):
        self.forward, self.backward, self.inputs, self.names, self.rng = forward, backward, inputs, names, rng
        self.breaches: list[tuple[str, str]] = []           # (what, one sentence)
        self.nonlinear: dict[str, tuple[str, Any, np.ndarray]] = {}       # input -> words, a dout, the gradient there
        before = snapshot(inputs)
        self.warm_up()
        self.out, cache = results(forward(*inputs.values()))
        self.same("forward", inputs, before)
        out_before = snapshot(self.out)
        self.dout = random_like(self.out, rng)
        self.views("out", arrays_of(self.out), inputs, "the input")
        self.deterministic()
        held = {"inputs": inputs, "dout": self.dout, "cache": cache}
        before = snapshot(held)
        grads = matched(backward(self.dout, cache), names, inputs)
        self.written(held, before)
        self.check_dtypes(grads)
        for name, grad in grads.items():
            self.views(f"the gradient of {name}", [grad], inputs, "the input")
            self.views(f"the gradient of {name}", [grad], {"cache": cache}, "what is held in")
        self.grads = {name: np.array(grad, np.float64) for name, grad in grads.items()}
        if not self.breaches:
            self.repeat(cache)
            self.other_inputs(cache, out_before)
            self.linear(cache)

    def breach(self, what: str, sentence: str) -> None:
        self.breaches.append((what, sentence))

    def same(self, who: str, inputs: Mapping[str, Any], before: Any) -> None:
        for name, old in zip(inputs, before):
            if not same(snapshot(inputs[name]), old):
                self.breach(name, f"{name} was written by {who}: an op must leave its inputs alone")

    def written(self, held: Mapping[str, Any], before: Any) -> None:
        self.same("forward or backward", self.inputs, before[0])
        if not same(snapshot(held["dout"]), before[1]):
            self.breach("dout", "backward wrote into dout, which others may still read")
        if not same(snapshot(held["cache"]), before[2]) and not self.breaches:
            self.breach("cache", "backward wrote into its cache: a second call finds other numbers there")

    def views(self, what: str, parts: Sequence[np.ndarray], owner: Mapping[str, Any], words: str) -> None:
        for name, value in owner.items():
            if any(share(part, array) for part in parts for array in arrays_of(value)):
                self.breach(what, f"{what} shares memory with {words} {name}: a later write to one changes the other")

    def deterministic(self) -> None:
        """The forward again on the same inputs."""
        again, _ = results(self.forward(*self.inputs.values()))
        first, second = (np.concatenate([a.ravel() for a in arrays_of(out)]) for out in (self.out, again))
        with np.errstate(all="ignore"):
            noise = np.nanmax(np.where(first == second, 0, np.abs(first - second)), initial=0)
            size = np.nanmax(np.abs(first[np.isfinite(first)]), initial=0)
        if noise > NOISE * np.finfo(first.dtype).eps * size or not np.array_equal(np.isnan(first), np.isnan(second)):
            self.breach("noise", f"forward is noisy: two calls on the same inputs differ by up to {noise:.1e} (outputs "
                                 f"up to {size:.1e}); a derivative needs one function, so fix its random numbers")

    def check_dtypes(self, grads: Mapping[str, Any]) -> None:
        for name, grad in grads.items():
            if grad.dtype != self.inputs[name].dtype:
                self.breach(name, f"the gradient of {name} must be {self.inputs[name].dtype}, as the input is: "
                                  f"got {grad.dtype}")

    def again(self, dout: Any, cache: Any) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return matched(self.backward(dout, cache), self.names, self.inputs)

    def repeat(self, cache: Any) -> None:
        for name, grad in self.again(self.dout, cache).items():
            if not same([grad.astype(np.float64)], [self.grads[name]]):
                self.breach(name, f"backward gives another gradient of {name} the second time, on the same dout and "
                                  "cache")

    def warm_up(self) -> None:
        """A forward on other inputs before all others: who keeps the first cache for ever has a wrong one."""
        try:
            with np.errstate(all="ignore"):
                self.forward(*self.others().values())
        except Exception:       # noqa: BLE001  as in other_inputs
            pass

    def others(self) -> dict[str, Any]:
        """The same numbers in another order."""
        return {name: self.rng.permutation(value.ravel()).reshape(value.shape) if name in self.names and value.size > 1
                else value * value.dtype.type(0.75) if name in self.names else value
                for name, value in self.inputs.items()}

    def other_inputs(self, cache: Any, out_before: Any) -> None:
        """The forward on the same numbers in another order, then the first forward's backward."""
        try:
            with np.errstate(all="ignore"):
                self.forward(*self.others().values())
        except Exception:       # noqa: BLE001  another function may be picky about its arguments; then nothing is learnt
            return
        if not same(snapshot(self.out), out_before):
            self.breach("out", "a later forward overwrote the outputs of an earlier one: they share a buffer")
        kept = {name: grad.copy() for name, grad in self.again(self.dout, cache).items()}
        for name, grad in kept.items():
            if not same([grad.astype(np.float64)], [self.grads[name]]):
                self.breach(name, f"the gradient of {name} uses the last forward instead of its cache: after a forward "
                                  "on other inputs it is another one")

    def linear(self, cache: Any) -> None:
        """Zero at zero, homogeneous, additive; large and small, so that clipping shows."""
        other = random_like(self.out, self.rng)
        one = self.again(self.dout, cache)
        first = {name: grad.copy() for name, grad in one.items()}
        second = {name: grad.copy() for name, grad in self.again(other, cache).items()}
        if any(not same([one[name]], [first[name]]) for name in first):
            self.breach("gradients", "a later backward overwrote the gradients of an earlier one: they share a buffer")
        for a, b, words in ((0.0, 0.0, "is not zero for a dout of zeros"), (64.0, 0.0, "is not 64 times as large for "
                            "64 times dout"), (2.0 ** -20, 0.0, "does not shrink with dout"),
                            (1.0, -3.0, "of a sum of two douts is not the sum of their gradients")):
            dout = combined(self.dout, other, a, b)
            got = self.again(dout, cache)
            for name, grad in got.items():
                with np.errstate(all="ignore"):
                    want = a * first[name].astype(np.float64) + b * second[name]
                    size = np.abs(a * first[name]).max() + np.abs(b * second[name]).max()
                    wrong = np.abs(grad - want) > LINEAR[first[name].dtype.itemsize] * size
                if wrong.any():
                    self.nonlinear.setdefault(name, (words, dout, grad.astype(np.float64)))


def results(result: Any) -> tuple[Any, Any]:
    """(out, cache) of a forward, or a ValueError that says what it returned instead."""
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else a(result)
        raise ValueError(f"forward must return a tuple (out, cache): got {got}")
    out, cache = result
    for part in out if isinstance(out, tuple) else (out,):
        if not isinstance(part, (np.ndarray, np.floating, float)) or np.asarray(part).dtype.kind != "f":
            got = f"an array of {part.dtype}" if isinstance(part, np.ndarray) else a(part)
            raise ValueError(f"out, the first result of forward, must be an array of floats or a tuple of them: "
                             f"got {got}")
    if isinstance(out, tuple) and not out:
        raise ValueError("out, the first result of forward, must hold at least one array: got an empty tuple")
    return out, cache


def a(value: Any) -> str:
    kind = type(value).__name__
    return f"a{'n' if kind[0] in 'aeiou' else ''} {kind}"


def matched(grads: Any, names: Sequence[str], inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{name: gradient} without those of None, after checking their number and shapes."""
    grads = grads if isinstance(grads, (tuple, list)) else (grads,)
    if len(grads) != len(names):
        raise ValueError(f"backward must return {len(names)} gradients ({', '.join(names)}): got {len(grads)}")
    for name, grad in zip(names, grads):
        if grad is not None and np.shape(grad) != inputs[name].shape:
            raise ValueError(f"the gradient of {name} must have shape {inputs[name].shape}: got {np.shape(grad)}")
        if grad is not None and np.asarray(grad).dtype.kind not in "fiub":
            raise ValueError(f"the gradient of {name} must be an array of floats: got {np.asarray(grad).dtype}")
    found = {name: np.asarray(grad) for name, grad in zip(names, grads) if grad is not None}
    if not found:
        raise ValueError("backward must return at least one gradient: got None for every input")
    return found


def random_like(out: Any, rng: np.random.Generator) -> Any:
    """Normal numbers in the shape of out, float32 where it is: one array, or a tuple of them."""
    if isinstance(out, tuple):
        return tuple(random_like(x, rng) for x in out)
    numbers = np.asarray(rng.standard_normal(np.shape(out)))
    return numbers.astype(np.float32 if np.asarray(out).dtype == np.float32 else np.float64)


def combined(d: Any, e: Any, a: float, b: float) -> Any:
    """a * d + b * e, in the dtype of d."""
    return (tuple(combined(*parts, a, b) for parts in zip(d, e)) if isinstance(d, tuple) else
            np.asarray(a * d + b * e, np.asarray(d).dtype))


# ---- what objects hold --------------------------------------------------------------------------------------------

def walk(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every array and plain number in nested tuples, lists, dicts and objects with attributes; the rest is opaque."""
    if isinstance(value, (np.ndarray, np.generic, int, float, complex, str, bytes, type(None))):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        parts = (value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else
                 vars(value).values() if hasattr(value, "__dict__") and not callable(value) else ())
        for part in list(parts):
            yield from walk(part, seen)


def snapshot(value: Any) -> list:
    """Copies of them all, for `same`. A mapping of inputs gives a list for each."""
    if isinstance(value, dict):
        return [snapshot(part) for part in value.values()]
    return [part.copy() if isinstance(part, np.ndarray) else part for part in walk(value, set())]


def arrays_of(value: Any) -> list[np.ndarray]:
    return [np.asarray(part) for part in walk(value, set()) if isinstance(part, (np.ndarray, np.floating, float))]


def same(one: Any, other: Any) -> bool:
    """Bit by bit; NaN is NaN."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and (
            one.dtype.kind == "O" or one.tobytes() == other.tobytes())
    return one is other or bool(one == other) or (one != one and other != other)


def share(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays overlap in memory; exactly, unless that takes too long to find out."""
    try:
        return bool(np.shares_memory(one, other, max_work=10 ** 5))                  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False
