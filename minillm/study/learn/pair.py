"""The stages for a forward and a backward: an op of the table, or a pair that an exercise brings with its inputs.

    shapes and dtype    of every result, float32 in and float64 in, at sizes that all differ
    values              the forward beside the reference, in float64
    finite differences  every gradient beside central differences of the learner's own forward (gradcheck)
    complex step        the same without subtraction, to rounding error
    contract            nothing written, nothing remembered, nothing shared, linear in dout
    large values        inputs a thousand times as large: does an exp overflow?
    C++ kernel          float32 beside the compiled kernel
    speed               beside the reference and the kernel
"""
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import numpy as np

from ...gradcheck import Row, gradcheck
from ...kernels.select import choices, select
from ...ops.table import OPS, REFERENCE, Dims
from .compare import check_kind, difference, equal
from .exercise import Exercise, Wrong
from .mistakes import known_mistake, variant_of

SIZES = (Dims(B=2, T=5, C=6, NH=3, V=4), Dims(B=1, T=1, C=4, NH=1, V=3), Dims(B=3, T=4, C=10, NH=5, V=11))
TIMED = Dims(B=2, T=64, C=32, NH=4, V=256)
LARGE = 1000.0
VERBS = ("lacks ", "has ", "is ", "counts ", "begins ", "gives ", "goes ",
         "takes ", "does ", "leaves ", "sums ")      # a sentence without its subject
SINGLE = 1e-4           # float32 beside the kernel, of the largest number
SECONDS = 0.3           # of timing


class Pair:
    """The learner's functions, the reference's, and what they are called with."""

    def __init__(self, exercise: Exercise, yours: Any) -> None:
        stem = exercise.op or exercise.solve[0].removesuffix("_forward").removesuffix("_backward")
        self.exercise, self.yours, self.forward_name, self.backward_name = (exercise, yours, f"{stem}_forward",
                                                                            f"{stem}_backward")
        self.found: dict[str, list[Row]] = {}
        self.forward: Callable = getattr(yours, self.forward_name, None) or self.right.forward
        self.judges_backward = self.backward_name in exercise.solve
        self.backward: Callable | None = getattr(yours, self.backward_name) if self.judges_backward else None

    @cached_property
    def right(self) -> Any:
        """The reference pair: of the op table, or the exercise's own solution."""
        class Right:
            functions = REFERENCE if self.exercise.op else vars(variant_of(self.exercise))
            forward, backward = functions[self.forward_name], functions.get(self.backward_name)
        return Right

    def sample(self, number: int = 0, dtype: str = "float64", dims: Dims | None = None) -> dict[str, Any]:
        rng = np.random.default_rng([number, 1])
        if self.exercise.op:
            args = OPS[self.exercise.op].sample(rng, dtype, dims or SIZES[number])
            while not number and "targets" in args and args["targets"].min() >= 0:      # one row must be ignored
                args = OPS[self.exercise.op].sample(rng, dtype, dims or SIZES[number])
            return args
        assert self.exercise.inputs is not None
        return {name: value.astype(dtype) if is_float(value) else value
                for name, value in self.exercise.inputs(rng).items()}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs that have a gradient."""
        return (OPS[self.exercise.op].differentiable if self.exercise.op else self.exercise.wrt
                or tuple(name for name, value in self.sample().items() if is_float(value)))

    def dout(self, out: Any) -> Any:
        rng = np.random.default_rng(len(np.shape(out)) + 7)
        return (tuple(self.dout(part) for part in out) if isinstance(out, tuple) else
                rng.standard_normal(np.shape(out)).astype(np.asarray(out).dtype))

    def gradients(self, functions: Any, args: dict[str, Any]) -> dict[str, np.ndarray]:
        """{input: gradient} of a pair's backward."""
        out, cache = functions.forward(*args.values())
        grads = functions.backward(self.dout(out), cache)
        return dict(zip(self.names, grads if isinstance(grads, (tuple, list)) else (grads,)))

    def stages(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "shapes and dtype", self.shapes
        yield "values", self.values
        if self.judges_backward:
            yield "finite differences", lambda: self.differences("central")
            yield "complex step", lambda: self.differences("complex")
        yield "contract", self.contract
        yield "large values", self.large_values
        if self.exercise.op:
            yield "C++ kernel", self.kernel

    # ---- the stages ------------------------------------------------------------------------------------------------

    def shapes(self) -> str:
        for number in range(len(SIZES)):
            for dtype in ("float64", "float32"):
                args = self.sample(number, dtype)
                out, cache = self.out_and_cache(args)
                right, _ = self.right.forward(*args.values())
                check_kind("out", out, right)
                if self.backward:
                    grads = self.counted(self.backward(self.dout(right), cache))
                    for name, grad in zip(self.names, grads):
                        check_kind(f"d{name}", grad, args[name])
        shape = " and ".join(str(part.shape) for part in (out if isinstance(out, tuple) else (out,)))
        return f"right at {len(SIZES)} sizes in float32 and float64, out {shape} at the last"

    def out_and_cache(self, args: dict[str, Any]) -> tuple[Any, Any]:
        """The learner's forward, on copies: whether it writes into them is the contract's matter."""
        result = self.forward(*deepcopy(list(args.values())))
        if not isinstance(result, tuple) or len(result) != 2:
            got = "None: is a `return` missing?" if result is None else f"a {type(result).__name__}"
            raise Wrong(f"{self.forward_name} must return the pair (out, cache): got {got}")
        return result

    def counted(self, grads: Any) -> tuple:
        if grads is None:
            raise Wrong(f"{self.backward_name} returns None: is a `return` missing?")
        grads = tuple(grads) if isinstance(grads, (tuple, list)) else (grads,)
        if len(grads) != len(self.names):
            wanted = ", ".join(f"d{name}" for name in self.names)
            raise Wrong(f"{self.backward_name} must return {len(self.names)} gradients ({wanted}): got {len(grads)}")
        return grads

    def values(self) -> str:
        largest = 0.0
        for number in range(len(SIZES)):
            args = self.sample(number)
            out, _ = self.out_and_cache(args)
            right, _ = self.right.forward(*args.values())
            for name, a, b in outputs(out, right):
                if not equal(a, b):
                    known = known_mistake(self.exercise, a, b, partial(self.output, args, name))
                    raise Wrong(f"{name}{joined(known)}" if known else difference(name, a, b))
                largest = max(largest, float(np.abs(a - b).max(initial=0)))
        return f"out agrees with the reference, largest difference {largest:.1e}"

    def output(self, args: dict[str, Any], name: str, other: Any) -> Any:
        """A wrong variant's output of that name."""
        out, _ = getattr(other, self.forward_name)(*args.values())
        return next(a for each, a, _ in outputs(out, out) if each == name)

    def differences(self, method: str) -> str:
        rows = self.rows(method)
        numeric = [row for row in rows if row.checked]
        if wrong := [row for row in numeric if not row.passed]:
            rest = [f"d{row.name}" for row in numeric if row.passed]
            others = listed(rest) if len(rest) < 5 else f"the other {len(rest)}"
            right = f"; {others} {'is' if len(rest) == 1 else 'are'} right" if rest else ""
            raise Wrong(self.diagnosed(wrong) + right)
        if not numeric:
            raise Wrong("; ".join(row.note for row in rows))
        checked = sum(row.checked for row in numeric)
        names = listed([f"d{row.name}" for row in numeric]) if len(numeric) < 6 else f"all {len(numeric)} gradients"
        return f"{names} right at {checked:,} places, largest error {max(row.error for row in numeric):.0e}"

    def rows(self, method: str) -> list[Row]:
        """What gradcheck finds; the contract's breaches are among the rows of either method."""
        if method not in self.found:
            self.found[method] = self.gradcheck(method)
        return self.found[method]

    def gradcheck(self, method: str) -> list[Row]:
        def forward(*values: Any) -> Any:
            """The learner's; along the imaginary axis the reference's, which takes it."""
            turned = any(getattr(value, "dtype", None) == np.complex128 for value in values)
            return (self.right.forward if turned else self.forward)(*values)

        assert self.backward is not None
        return gradcheck(forward, self.backward, self.sample(), method=method, raise_exception=False, wrt=self.names)

    def diagnosed(self, rows: list[Row]) -> str:
        """The wrong gradients, those with the same mistake in one sentence."""
        found: dict[str, list[Row]] = {}
        for row in rows:
            found.setdefault(self.mistake(row), []).append(row)
        return "; ".join(f"your d{first.name}{joined(words)} ({shown(first)})" + (
            f", and so of {listed([f'd{row.name}' for row in rest])}" if rest else "")
            for words, (first, *rest) in found.items())

    def mistake(self, row: Row) -> str:
        """The known mistake, else what gradcheck sees in the numbers."""
        args, name = self.sample(), row.name
        mine, right = self.gradients(self, args).get(name), self.gradients(self.right, args)[name]
        known = known_mistake(self.exercise, mine, right, lambda other: self.gradients(
            variant_pair(other, self), args)[name])
        return known or (row.note or "wrong") + self.wrong_parts(name, mine, right)

    def wrong_parts(self, name: str, mine: Any, right: Any) -> str:
        """Which of the parts that lie side by side are wrong, "" if all or if it has none."""
        parts = dict(self.exercise.parts).get(name, ())
        pairs = zip(parts, *(np.split(grad, len(parts), axis=-1) for grad in (mine, right) if parts))
        wrong = [f"d{part}" for part, a, b in pairs if not equal(a, b, 1e-6)]
        return f"; that is {listed(wrong)}" if 0 < len(wrong) < len(parts) else ""

    def contract(self) -> str:
        if not self.backward:
            return self.leaves_alone()
        if breaches := [row.note for row in self.rows("central") if not row.checked]:
            raise Wrong("; ".join(breaches))
        return "nothing written, nothing remembered, nothing shared, linear in dout"

    def leaves_alone(self) -> str:
        """The forward's part of the contract."""
        args = self.sample()
        before = {name: np.array(value) for name, value in args.items() if isinstance(value, np.ndarray)}
        out, _ = self.forward(*args.values())
        first = [np.array(a) for _, a, _ in outputs(out, out)]
        again, _ = self.forward(*args.values())
        for name, value in before.items():
            if not np.array_equal(args[name], value):
                raise Wrong(f"{name} was written by {self.forward_name}: an op must leave its inputs alone")
            if any(np.may_share_memory(a, args[name]) for _, a, _ in outputs(out, out)):
                raise Wrong(f"out shares memory with {name}: a later write to one changes the other")
        if not all(np.array_equal(a, b) for a, (_, b, _) in zip(first, outputs(again, again))):
            raise Wrong("two calls on the same inputs give different results")
        return "inputs left alone, the same result twice, out is a fresh array"

    def large_values(self) -> str:
        args = self.sample()
        first = next(name for name, value in args.items() if is_float(value))
        args[first] = args[first] * LARGE
        out, _ = self.forward(*args.values())
        right, _ = self.right.forward(*args.values())
        for name, a, b in outputs(out, right):
            if not equal(a, b, 1e-6):
                known = known_mistake(self.exercise, a, b, partial(self.output, args, name))
                raise Wrong(f"with {first} {LARGE:g} times as large {difference(name, a, b, 1e-6)}"
                            + (f": {known}" if known else ""))
        theirs = self.gradients(self.right, args) if self.backward else {}
        for name, grad in self.gradients(self, args).items() if self.backward else ():
            if np.isfinite(theirs[name]).all() and not np.isfinite(grad).all():
                raise Wrong(f"with {first} {LARGE:g} times as large d{name} is not finite: an exp overflows, or 0 / 0")
        return f"right with {first} {LARGE:g} times as large"

    def kernel(self) -> str:
        if "cpu" not in choices(self.exercise.op, "float32"):
            return "passed over: no compiled kernel of this op here"
        args, worst = self.sample(2, "float32"), 0.0
        kernels = self.kernels("cpu")
        found = list(outputs(self.forward(*args.values())[0], kernels.forward(*args.values())[0]))
        if self.backward:
            mine, theirs = self.gradients(self, args), self.gradients(kernels, args)
            found += [(f"d{name}", mine[name], theirs[name]) for name in self.names]
        for name, a, b in found:
            if not equal(a, b, SINGLE):
                raise Wrong(f"in float32 {difference(name, a, b, SINGLE)}, says the C++ kernel")
            worst = max(worst, float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30)))
        return f"float32 results agree with minillm's kernel, to {worst:.0e} of the largest number"

    def kernels(self, backend: str) -> Any:
        ops, names = select({self.exercise.op: backend}), (self.forward_name, self.backward_name)

        class Kernels:
            forward, backward = (staticmethod(getattr(ops, name)) for name in names)
        return Kernels

    def speed(self) -> str:
        """Milliseconds of a forward, and a backward where it is judged, in float32; no verdict."""
        args = self.sample(0, "float32", TIMED)
        contenders = {"yours": self, "the reference in NumPy": self.right}
        if self.exercise.op and "cpu" in choices(self.exercise.op, "float32"):
            contenders["the C++ kernel"] = self.kernels("cpu")
        times = self.timed(contenders, args)
        words = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times.items())
        last = times.get("the C++ kernel")
        beside = f": {times['yours'] / last:.1f} times the kernel's time" if last else ""
        return f"{'forward and backward' if self.backward else 'forward'} in float32: {words}{beside}"

    def timed(self, contenders: dict[str, Any], args: dict[str, Any]) -> dict[str, float]:
        """Seconds of each, the best of many runs in turns: none has the busy moments to itself."""
        dout = self.dout(self.forward(*args.values())[0])
        times, end = dict.fromkeys(contenders, float("inf")), time.perf_counter() + SECONDS
        while float("inf") in times.values() or time.perf_counter() < end:
            for name, functions in contenders.items():
                start = time.perf_counter()
                _, cache = functions.forward(*args.values())
                if self.backward:
                    functions.backward(dout, cache)
                times[name] = min(times[name], time.perf_counter() - start)
        return times


def variant_pair(module: Any, pair: Pair) -> Any:
    class Variant:
        forward, backward = (staticmethod(getattr(module, name)) for name in (pair.forward_name, pair.backward_name))
    return Variant


def joined(words: str) -> str:
    """What follows a result's name: a sentence of its own, or the rest of one."""
    return f"{' ' if words.startswith(VERBS) else ': '}{words}"


def shown(row: Row) -> str:
    index = f"[{', '.join(map(str, row.index))}]" if row.index else ""
    return f"d{row.name}{index} is {row.analytic:.6g}, measured {row.numeric:.6g}"


def listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def outputs(out: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, mine, right) of each output: one, or several in a tuple."""
    if isinstance(right, tuple):
        yield from ((f"out[{i}]", a, b) for i, (a, b) in enumerate(zip(out, right)))
    else:
        yield "out", out, right


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
