"""The verdicts on a kernel: is it right, at every size, for every value, and does it do nothing else?

Each function is called in a child process (runner.py) on workloads whose answers the child does not know. A verdict
is a Finding with a name; one that fails tells the first workload that shows it, the worst element, what was expected
and what came.
"""
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...gradcheck import gradcheck
from ...ops.table import OPS, REFERENCE, Dims, functions
from .memory import PATTERN
from .process import Died
from .runner import Bench, Refused, own_for, own_memory
from .sizes import fitted
from .template import moved
from .workload import LARGE, MOST_BYTES, SHAPES, VALUES, Result, Workload, gradients_of_outputs, workload, workload_at

MEDIUM = Dims(B=2, T=9, C=24, NH=3, V=37)
TINY = Dims(B=1, T=3, C=4, NH=2, V=5)
MOST_EMULATED = 4e6      # FLOPs of the large size on the emulator
CALLS = 12              # with fresh values at the same addresses: a kernel that remembers is found out
ENDS = ("runs", "results")      # verdicts after which no other is asked for


@dataclass
class Finding:
    """One verdict on one function."""

    function: str
    check: str
    passed: bool
    message: str = ""

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.function:<30} {self.check:<22} {self.message}".rstrip()


def check_kernel(kernel: Any, threads: int = 2, seed: int | None = None) -> Iterator[Finding]:
    """All verdicts on one function, in order; the first crash ends them."""
    seed = int.from_bytes(np.random.default_rng(seed).bytes(4), "little")
    checks = {"values": check_values, "sizes": check_sizes, "hard values": check_hard_values,
              "fresh values": check_fresh, "leaves nothing behind": check_quiet, "gradient": check_gradient}
    bench = None
    try:
        for name, check in checks.items():
            if name == "gradient" and (kernel.direction != "backward" or kernel.precision.eps):
                continue                                # or too coarse to differentiate
            try:
                bench = bench or Bench(kernel, threads)
                yield Finding(kernel.name, name, True, check(bench, seed))
            except Died as died:
                yield Finding(kernel.name, "loads", False, str(died))
                return
            except Refused as refused:
                yield Finding(kernel.name, refused.args[0], False, refused.args[1])
                if refused.args[0] in ENDS or name == "values" or kernel.device:
                    return                                  # the rest would say the same again
                if bench:
                    bench.close()
                bench = None                                # the next check begins with a process of its own
        yield from notes(kernel)
    finally:
        if bench:
            bench.close()


def notes(kernel: Any) -> Iterator[Finding]:
    """What is not wrong with a CUDA kernel, but worth telling."""
    for kind, message in kernel.device.notes.values() if kernel.device else ():
        yield Finding(kernel.name, kind, True, message)


def check_values(bench: Bench, seed: int) -> str:
    return judged(bench, [of(bench, MEDIUM, seed)])


def check_sizes(bench: Bench, seed: int) -> str:
    """Each size with the arrays at the end of their pages, then at the beginning, between guard pages; CUDA's arrays
    lie elsewhere."""
    kernel = bench.kernel
    shapes = list(dict.fromkeys(fitted(dims, kernel.sizes) for dims in SHAPES))
    found = judged(bench, [of(bench, dims, seed + i) for i, dims in enumerate(shapes)],
                   ends=(True,) if kernel.device else (True, False))
    judged(bench, [of(bench, large(kernel), seed)])
    return f"1 large and {found}"


def large(kernel: Any) -> Dims:
    """The first of the large sizes at which the op's arrays are not too many bytes."""
    backward = kernel.direction == "backward"
    signature = OPS[kernel.op].signatures()[backward]
    emulated = kernel.device is not None and kernel.device.name == "emulator"
    return next((dims for dims in (fitted(dims, kernel.sizes) for dims in LARGE)
                 if moved(kernel.op, signature, dims) < MOST_BYTES
                 and not (emulated and OPS[kernel.op].flops(dims)[backward] > MOST_EMULATED)), SHAPES[-1])


def check_hard_values(bench: Bench, seed: int) -> str:
    return judged(bench, [of(bench, MEDIUM, seed + i, kind) for i, kind in enumerate(VALUES)])


def judged(bench: Bench, works: list[Workload], ends: tuple = (True,)) -> str:
    """Run every workload and judge it: how many, and how near its allowance the worst element is."""
    worst = 0.0
    for work in works:
        for at_end in ends:
            worst = max(worst, judge_one(bench, work, at_end))
    return f"{len(works)} workloads, error at most {worst:.2f} of what rounding allows"


def judge_one(bench: Bench, work: Workload, at_end: bool) -> float:
    bench.prepare([work], at_end, own_memory(bench, work, at_end))
    bench.run()
    check_memory(bench, work)
    worst = compare(work, bench.found(work), bench.kernel)
    check_state(bench, work)
    bench.end()
    return worst


def of(bench: Bench, dims: Dims, seed: int, kind: str = "normal") -> Workload:
    """A workload for this kernel, for which none of the null answers is right."""
    kernel = bench.kernel
    return workload(kernel.op, kernel.direction, fitted(dims, kernel.sizes), kernel.dtype, seed, kind, kernel.added,
                    kernel.ignores, kernel.precision)


def check_memory(bench: Bench, work: Workload) -> None:
    """Inputs as they were, nothing written beside the arrays."""
    for placed in bench.placed:
        for region, before in placed.inputs:
            if bench.shared.array(region).tobytes() != before:
                raise Refused("inputs", f"{region.name} was written; it is an input ({work})")
        for region in placed.regions:
            if bench.shared.strayed(region):
                raise Refused("bounds",
                              f"it writes beside {region.name} ({work}): the {PATTERN:#x} bytes there are gone")


def check_state(bench: Bench, work: Workload) -> None:
    if problem := bench.guarded(bench.child.state):
        raise Refused("floating-point state", f"{problem} after it returned ({work})")


def compare(work: Workload, found: dict[str, np.ndarray], kernel: Any) -> float:
    """Raise for the worst element beyond its allowance; else the worst error as a share of it."""
    worst = 0.0
    for name in kernel.gives:
        name = kernel.reads(name)
        worst = max(worst, compare_one(name, found[name], work.results[name], work, kernel))
    return worst


def compare_one(name: str, got: np.ndarray, want: Result, work: Workload, kernel: Any) -> float:
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - want.expected)
        error[np.isnan(got) & np.isnan(want.expected) | (got == want.expected)] = 0
        if want.without_nan is not None:
            error = np.fmin(error, np.abs(got - want.without_nan))
        error[np.isnan(error)] = np.inf
        ratio = np.where(error == 0, 0, error / want.allowed)
    if not ratio.size or ratio.max() <= 1:
        return float(ratio.max(initial=0))
    index = tuple(map(int, np.unravel_index(ratio.argmax(), ratio.shape)))
    bad = int((ratio > 1).sum())
    raise Refused("values", f"{name}{list(index)} is {got[index]:.9g}, expected {want.expected[index]:.9g}, off by "
                            f"{error[index]:.1e} where rounding allows {want.allowed[index]:.1e}; {bad} of "
                            f"{ratio.size} "
                            f"are wrong ({work}){hint(name, got, want, kernel)}")


def hint(name: str, got: np.ndarray, want: Result, kernel: Any) -> str:
    """What a wrong array looks like, where that is plain."""
    def near(other: Any) -> bool:
        with np.errstate(all="ignore"):
            return bool(np.all(np.abs(got - other) <= want.allowed))
    if np.isnan(got).all() and not np.isnan(want.expected).all():
        return f": nothing was written there (or it adds to what is there: then bind it as +={name})"
    if np.isnan(got).any() and not np.isnan(want.expected).any():
        return f": {int(np.isnan(got).sum())} were never written, or come from what was not"
    if want.before is not None and near(want.expected - want.before):
        return f": it overwrites, but its binding says += (bind it as ={name})"
    if near(0):
        return ": all zeros"
    if near(2 * (want.expected)):
        return ": twice what it must be"
    if near(-want.expected):
        return ": the sign is wrong"
    return ""


def check_fresh(bench: Bench, seed: int) -> str:
    """Fresh values at the same addresses again and again; then the first again, which must give the same bits."""
    first, bits = of(bench, MEDIUM, seed), {}
    own = own_memory(bench, first, True)
    bench.prepare([first], True, own)
    for call in range(CALLS + 1):
        work = first if call in (0, 5, CALLS) else of(bench, MEDIUM, seed + 100 + call)
        own = own if own is None else own_for(bench, work)
        bench.rewrite(work, own)
        bench.run()
        found = bench.found(work)
        compare(work, found, bench.kernel)
        if work is first:
            bits = bits or {name: array.tobytes() for name, array in found.items()}
            if wrong := [name for name, array in found.items() if array.tobytes() != bits[name]]:
                if not bench.kernel.device:
                    raise Refused("same bits twice", f"{wrong[0]} differs between two calls on the same values")
                bench.kernel.device.notes["bits"] = ("not repeatable", f"{wrong[0]} differs in its last bits between "
                                                     "two calls on the same values, as sums by atomicAdd do")
    bench.end()
    return f"{CALLS} calls at the same addresses, the same bits twice"


def check_quiet(bench: Bench, seed: int) -> str:
    """After "done" nothing is computed, no process is left, and results stay what they are."""
    work = of(bench, MEDIUM, seed)
    bench.prepare([work], True, own_memory(bench, work, True))
    bench.run()
    bench.child.stopped()
    early = {name: array.tobytes() for name, array in bench.found(work).items()}
    used = bench.child.cpu_seconds()
    bench.child.continued()
    time.sleep(0.05)
    if left := bench.child.left_behind():
        raise Refused("leaves nothing behind", f"{len(left)} process{'es' * (len(left) > 1)} it started are left")
    if any(array.tobytes() != early[name] for name, array in bench.found(work).items()):
        raise Refused("leaves nothing behind", "its results change after it has returned")
    if bench.child.busy() and (spent := bench.child.cpu_seconds() - used) > 1e-3:
        raise Refused("leaves nothing behind", f"it computes on after it has returned: {1e3 * spent:.0f} ms in 50 ms")
    if taken := bench.child.taken():
        raise Refused("leaves nothing behind", taken)
    bench.end()
    return "nothing runs on after it has returned"


def check_gradient(bench: Bench, seed: int) -> str:
    """Its backward against finite differences of its own forward if there is one, else of the reference's."""
    kernel = bench.kernel
    spec, work = OPS[kernel.op], of(bench, TINY, seed)
    forward, backward = pair_of(bench)
    rows = gradcheck(forward, backward, work.args, wrt=spec.differentiable, raise_exception=False, verbose=False)
    wrong = [row for row in rows if not row.passed]
    if wrong and not wrong[0].checked:
        raise Refused("gradient", f"d{wrong[0].name}: {wrong[0].note}")
    if wrong:
        raise Refused("gradient",
                      f"d{wrong[0].name}{list(wrong[0].index)} is {wrong[0].analytic:.6g}, finite differences "
                                  f"of {'its own' if kernel.partner else 'the'} forward give {wrong[0].numeric:.6g}")
    return f"{len(rows)} gradients by finite differences of {'its own' if kernel.partner else 'our'} forward"


def pair_of(bench: Bench) -> tuple[Any, Any]:
    """(forward, backward) in the manner of ours, run in the child: its own forward, or the reference's."""
    kernel, spec = bench.kernel, OPS[bench.kernel.op]
    names = list(of(bench, TINY, 0).args)
    own_forward = kernel.partner or (kernel if "forward" in getattr(kernel, "names", ()) else None)

    def run(direction: str, subject: Any, args: tuple, douts: dict[str, Any]) -> dict[str, np.ndarray]:
        work = workload_at(spec.name, direction, dict(zip(names, args)), kernel.dtype, douts, subject.added)
        own = own_memory(bench, work, True) if direction == "backward" else None
        bench.kernel = subject
        bench.prepare([work], True, own)
        bench.run()
        found = bench.found(work)
        bench.end()
        bench.kernel = kernel
        return found

    def forward(*args: Any) -> Any:
        if own_forward is None:
            return REFERENCE[functions(spec)[0]](*args)[0], args
        subject = replace(kernel, direction="forward") if own_forward is kernel else own_forward
        found = run("forward", subject, args, {})
        out = tuple(found[name] for name in ("s", "out") if name in found)
        return out if len(out) > 1 else out[0], args

    def backward(dout: Any, cache: tuple) -> tuple:
        douts = dict(zip(gradients_of_outputs(spec.name), dout if isinstance(dout, tuple) else (dout,)))
        grads = run("backward", kernel, cache, douts)
        return tuple(grads["dx" if name in spec.shared_gradient else f"d{name}"] for name in spec.differentiable)

    return forward, backward


def as_json(findings: list[Finding]) -> list[dict]:
    return [asdict(finding) for finding in findings]
