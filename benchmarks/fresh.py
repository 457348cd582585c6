"""Timed calls that nobody has seen before, and whose results are looked at.

A kernel that keeps its last answer, or that does its work only while it is checked, is as fast as it likes on inputs
that repeat. So before each timed call the input is scaled by a new random number, outside the clock: the first floating
argument of a forward, dout of a backward. Every result must be arrays of the right shape, and other ones than before. A
backward is linear in dout, so each of its calls is compared with the reference's gradients, scaled, at random places;
of a forward some calls, which nobody can foresee, are compared whole.
"""
import numpy as np

from .measure import disagreements, named_outs

PLACES = 32             # of each result, compared at every call
WHOLE = 2               # calls of each candidate that are compared whole
APART = 0.02            # scales of two calls of a candidate: bfloat16 rounds inputs that are closer to the same numbers


class Fresh:
    """The inputs of one direction of an op, changed before each call, and what its results must be."""

    def __init__(self, spec, direction, args, dout, expected, reference, tolerances, rng):
        """expected: {name: array} of the reference in float64 for the inputs as they are; reference: () -> the same for
        the inputs as they are now; tolerances: {candidate: its tolerance}."""
        self.spec, self.direction, self.rng, self.reference = spec, direction, rng, reference
        self.tolerances = tolerances
        floats = [value for value in args.values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
        self.arrays = ([] if spec.kind == "update" else list(dout) if isinstance(dout, tuple) else [dout]) \
            if direction != "forward" else floats[:1]
        self.base = [array.copy() for array in self.arrays]
        self.expected = {name: value for name, value in expected.items()
                         if name.startswith("out") == (direction == "forward")}
        self.not_zero = {name: np.flatnonzero(want) for name, want in self.expected.items()
                         if np.count_nonzero(want) < want.size / 2}             # a scatter-add names few rows
        self.scale, self.scales, self.last, self.wrong, self.calls = 1.0, {}, {}, {}, {}

    def before(self, name):
        """New inputs, none that the candidate's last call had."""
        self.scale = last = self.scales.get(name, 1.0)
        while abs(self.scale - last) < APART:
            self.scale = float(self.rng.uniform(0.5, 1.5)) * (1 if self.rng.random() < 0.5 else -1)
        self.scales[name] = self.scale
        for array, base in zip(self.arrays, self.base):
            np.multiply(base, array.dtype.type(self.scale), out=array)

    def after(self, name, result):
        """Look at what a call has left; the first thing wrong with a candidate is kept."""
        if name in self.wrong or self.spec.kind == "update" or name not in self.tolerances:
            return
        self.calls[name] = self.calls.get(name, 0) + 1
        lines = self.problems(name, plain(result, self.spec, self.direction))
        if lines:
            self.wrong[name] = [f"timed call {self.calls[name]}: {line}" for line in lines]

    def problems(self, name, got):
        lines = [f"{key} is {getattr(got.get(key), 'dtype', None)} {np.shape(got.get(key))}, expected {np.shape(want)}"
                 for key, want in self.expected.items() if np.shape(got.get(key)) != np.shape(want)]
        if lines:
            return lines
        flat = {key: array.reshape(-1) for key, array in got.items() if array.size}
        before, places = self.last.get(name), self.places()
        self.last[name] = places, {key: flat[key][places[key]] for key in flat}
        if before and all(np.array_equal(before[1][key], flat[key][before[0][key]]) for key in flat):
            return ["the results are those of the call before, whose inputs were others"]
        if self.direction == "backward":
            want = {key: self.scale * self.expected[key].reshape(-1)[places[key]] for key in flat}
            return disagreements(self.last[name][1], want, 4 * self.tolerances[name])
        if self.rng.random() > self.share(name):
            return []
        return disagreements(got, self.reference(), self.tolerances[name])

    def places(self):
        """Where each result is looked at, this time and after the next call."""
        found = {key: self.rng.integers(0, want.size, PLACES) for key, want in self.expected.items() if want.size}
        for key, places in self.not_zero.items():
            if len(places):
                found[key][::2] = self.rng.choice(places, PLACES // 2)
        return found

    def share(self, name):
        """How likely a call is to be compared whole: the first of a candidate always, later ones ever less."""
        return min(1.0, WHOLE / self.calls[name] ** 2)

    def restore(self):
        for array, base in zip(self.arrays, self.base):
            array[...] = base


def plain(result, spec, direction):
    """{name: NumPy array} of what a call returned: ours or PyTorch's, without the cache."""
    if direction == "forward":
        out = result[0] if spec.kind == "pair" and isinstance(result, tuple) and len(result) == 2 \
            and not hasattr(result[1], "shape") else result
        return {name: array_of(part) for name, part in named_outs(out).items()}
    grads = result if isinstance(result, tuple) else (result,)
    return {f"d{name}": turned(spec, name, grad) for name, grad in zip(spec.differentiable, grads)}


def turned(spec, name, grad):
    """A gradient in our layout; PyTorch stores some weights the other way round."""
    return array_of(grad).T if name in spec.transposed and hasattr(grad, "detach") else array_of(grad)


def array_of(part):
    return part.detach().numpy() if hasattr(part, "detach") else np.atleast_1d(np.asarray(part))
