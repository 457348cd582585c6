"""One op of the table as benchmark rows: every built implementation and PyTorch's, forward and backward apart."""
from importlib.util import find_spec

import numpy as np

from minillm.kernels.select import choices, select
from minillm.ops.table import OPS, REFERENCE, Dims, functions
from minillm.workbench.precision import in_bfloat16

from .fresh import Fresh
from .measure import TOLERANCE, Candidate, gate, interleave, named_outs

DIRECTIONS = {"pair": ("forward", "backward"), "decode": ("forward",), "reduce": ("forward",), "update": ("update",)}
GPT2 = Dims(B=4, T=256, C=768, NH=12, V=50257)


def op_rows(name, dims=GPT2, dtype="float32", threads=2, peaks=None, ladder=False, repeat=None, torch=True):
    """Check and time one op: returns rows (dicts, see report.COLUMNS), {candidate: [what is wrong]}, {} skipped.

    peaks: from machine.peaks, or None for no percentages. ladder: teaching variants too. torch: False leaves it out.
    """
    spec, rng = OPS[name], np.random.default_rng(0)
    args = spec.sample(rng, dtype, dims)
    out = output(spec, args)
    dout = normal_like(rng, out) if spec.kind == "pair" else np.empty(0)
    entrants = [ours(spec, choice, args, dout) for choice in choices_of(spec, dtype, ladder)]
    if torch and find_spec("torch"):
        from . import oracle_torch
        entrants.append(oracle_torch.candidate(spec, args, dout, threads))
    want = expected(spec, args, dout)
    right, wrong = gate([c for c in entrants if c], want, TOLERANCE[dtype])
    costs = zip(spec.flops(dims), spec.traffic(args, out))
    rows = []
    for direction, cost in zip(DIRECTIONS[spec.kind], costs):
        if not any(direction in c.runs for c in right):
            continue
        fresh = Fresh(spec, direction, args, dout, want, lambda: forward_now(spec, args),
                      {c.name: c.tolerance or TOLERANCE[dtype] for c in right if c.compared}, rng)
        timings = interleave({c.name: c.runs[direction] for c in right if direction in c.runs}, repeat, fresh=fresh)
        fresh.restore()
        wrong |= fresh.wrong
        timings = {name: timing for name, timing in timings.items() if name not in wrong}
        rows += [row(spec, dims, dtype, direction, choice, timings, cost, peaks) for choice in timings]
    return rows, wrong, {}


def choices_of(spec, dtype, ladder):
    """An op's implementations that take this dtype; a composite without a kernel gets its parts by auto. The CUDA
    emulator is there to test, not to time."""
    found = [choice for choice in choices(spec.name, dtype) if not choice.startswith("cudasim")]
    if spec.composite and found == ["numpy"]:
        found.append("auto")
    return [choice for choice in found if ladder or "/" not in choice]


def ours(spec, choice, args, dout):
    """A Candidate of minillm. "numpy" means all of it: the parts of a composite, too."""
    ops = select(choice) if choice in ("numpy", "auto") else select({spec.name: choice})
    calls = [getattr(ops, name) for name in functions(spec)]
    build = {"pair": pair, "decode": decode, "reduce": decode, "update": update}[spec.kind]
    return Candidate(choice, *build(spec, calls, args, dout),
                     tolerance=TOLERANCE["bfloat16"] if in_bfloat16(choice) else None)


def pair(spec, calls, args, dout):
    """runs and results of a forward and its backward; the backward is timed on the cache of one forward."""
    forward, backward = calls
    state = []

    def run_backward():
        if not state:
            state.append(forward(*args.values())[1])
        return backward(dout, state[0])

    def results():
        out, cache = forward(*args.values())
        grads = backward(dout, cache)
        grads = grads if isinstance(grads, tuple) else (grads,)
        return named_outs(out) | {f"d{name}": grad for name, grad in zip(spec.differentiable, grads)}

    return {"forward": lambda: forward(*args.values()), "backward": run_backward}, results


def decode(spec, calls, args, dout):
    (forward,) = calls
    return {"forward": lambda: forward(*args.values())}, lambda: {"out": np.atleast_1d(forward(*args.values()))}


def update(spec, calls, args, dout):
    """An update works in place, so every candidate has its own copies."""
    (step,) = calls
    mine = copies(args)

    def run():
        step(*mine.values())
        return mine["w"]

    def results():
        fresh = copies(args)
        step(*fresh.values())
        return {name: fresh[name] for name in ("w", "m", "v") if name in fresh}

    return {"update": run}, results


def expected(spec, args, dout):
    """The reference's results in float64."""
    wide = tuple(part.astype(np.float64) for part in dout) if isinstance(dout, tuple) else dout.astype(np.float64)
    return ours(spec, "numpy", copies(args, np.float64), wide).results()


def forward_now(spec, args):
    """The reference's outputs in float64 for the inputs as they are now."""
    out = output(spec, copies(args, np.float64))
    return {name: np.atleast_1d(part) for name, part in named_outs(out).items()}


def copies(args, dtype=None):
    """Fresh arrays; floating ones in dtype."""
    def fresh(value):
        if not isinstance(value, np.ndarray):
            return value
        return value.astype(dtype if dtype and value.dtype.kind == "f" else value.dtype)
    return {name: fresh(value) for name, value in args.items()}


def output(spec, args):
    """What the reference returns, without its cache: an array, a tuple of them, a number, or None from an update."""
    if spec.kind == "update":
        return None
    result = REFERENCE[functions(spec)[0]](*args.values())
    return result[0] if spec.kind == "pair" else result


def normal_like(rng, out):
    """Normal numbers in the shape and dtype of an output, a tuple of arrays for several."""
    if isinstance(out, tuple):
        return tuple(normal_like(rng, part) for part in out)
    return rng.standard_normal(out.shape).astype(out.dtype)


def row(spec, dims, dtype, direction, name, timings, cost, peaks):
    """One line of the report: see report.COLUMNS for the units."""
    timing, (flops, size) = timings[name], cost
    rates = {"gflops": flops / timing.median / 1e9, "gbs": size / timing.median / 1e9}
    arithmetic = "bfloat16" if in_bfloat16(name) and "bfloat16" in (peaks or {}) else dtype
    return {"op": spec.name, "dims": " ".join(f"{k}={v}" for k, v in dims.sampled().items()), "dtype": dtype,
            "direction": direction, "candidate": name, "median_ms": 1e3 * timing.median, "low_ms": 1e3 * timing.low,
            "high_ms": 1e3 * timing.high, "samples": timing.samples, **rates, **share(rates, arithmetic, peaks),
            "x_numpy": ratio("numpy", timing, timings), "x_torch": ratio("torch", timing, timings)}


def share(rates, dtype, peaks):
    """Percent of the limit that is nearer, and which limit it is."""
    if not peaks or dtype not in peaks:
        return {"peak_percent": None, "bound": None}
    shares = {"compute": rates["gflops"] / peaks[dtype]["gflops"], "memory": rates["gbs"] / peaks["memory"]["gbs"]}
    bound = max(shares, key=shares.get)
    return {"peak_percent": 100 * shares[bound], "bound": bound}


def ratio(other, timing, timings):
    """How many times faster than the other candidate; None where it was not timed."""
    return timings[other].median / timing.median if other in timings else None
