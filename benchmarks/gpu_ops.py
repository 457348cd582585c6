"""Every op of the table that has CUDA kernels: is it right, and how near to the memory's bandwidth?

Right: small samples of the SPEC as NumPy arrays, results and gradients against the pair in float64, and twice the same
bits. Fast: arrays on the device at the sizes of a GPT-2 step, compared with the CPU's kernels before they are timed.
"""
from functools import cache

import numpy as np

from minillm.kernels.select import select
from minillm.ops.table import OPS, Dims, functions
from minillm.workbench.precision import in_bfloat16

from . import gpu_arrays, gpu_time
from .gpu_runner import NotBuilt
from .measure import TOLERANCE, disagreements, named_outs
from .ops import expected, normal_like, ours, output

ALLOWED = TOLERANCE | {"float16": 2e-2}
LARGE = 1e-3                                # of float32 at the timed sizes, whose sums are long, and bf16's by its own
SMALL = (Dims(), Dims(1, 1, 4, 2, 3), Dims(3, 37, 40, 5, 131), Dims(2, 130, 96, 3, 1000))
IN_PLACE = ("w", "m", "v")                  # what an update writes
POOL = 2 ** 20 + 7                          # random numbers made once and repeated


# ---- right? ----

def cases(op, choices, emulate):
    """[choice, dtype, sizes] of what is compared; bfloat16 arrays need ml_dtypes and are left to the attention's."""
    sizes = SMALL[:2] if emulate else SMALL
    return [[choice, dtype, list(dims)] for choice in choices for dtype in OPS[op].kernels[choice]
            if dtype != "bfloat16" for dims in sizes]


def check(op, choice, dtype, dims):
    """One case: {"wrong": lines, ...}."""
    spec, rng, dims = OPS[op], np.random.default_rng(sum(dims)), Dims(*dims)
    args = spec.sample(rng, dtype, dims)
    out = output(spec, args)
    dout = normal_like(rng, out) if spec.kind == "pair" else np.empty(0)
    candidate = ours(spec, choice, args, dout)
    want, (first, again) = expected(spec, args, dout), (candidate.results() for _ in range(2))
    wrong = disagreements(first, want, ALLOWED["bfloat16" if in_bfloat16(choice) or "wgmma" in choice else dtype])
    wrong += [f"{name} has other bits the second time" for name in first
              if np.asarray(first[name]).tobytes() != np.asarray(again[name]).tobytes()]
    return {"op": op, "choice": choice, "dtype": dtype, "dims": dims.sampled(), "wrong": wrong}


# ---- fast? ----

class Pooled:
    """A generator whose normal numbers repeat after a million, and so are there at once."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.pool = self.rng.standard_normal(POOL)

    def standard_normal(self, shape, dtype="float64"):
        return np.resize(self.pool.astype(dtype), shape)

    def __getattr__(self, name):
        return getattr(self.rng, name)


def timed_dims(spec, emulate):
    """Those of GPT-2 124M, so many tokens that no cache holds an array; few of them where each has V numbers."""
    has_logits = any("V" in array.shape for s in spec.signatures() for array in (*s.results, *s.inputs))
    return Dims() if emulate else Dims(B=2 if has_logits else 32, T=1024, C=768, NH=12, V=50257)


@cache
def prepared(op, emulate):
    """(arguments, dout, what the CPU's kernels make of them, [(FLOPs, bytes) forward and backward]) of a timed op."""
    spec, dims, rng, cpu = OPS[op], timed_dims(OPS[op], emulate), Pooled(0), select("auto")
    args = spec.sample(rng, "float32", dims)
    kept = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in args.items()}
    result = getattr(cpu, functions(spec)[0])(*kept.values())
    out = None if spec.kind == "update" else result[0] if spec.kind == "pair" else result
    dout = normal_like(rng, out) if spec.kind == "pair" else None
    return args, dout, wanted(spec, cpu, kept, result, dout), list(zip(spec.flops(dims), spec.traffic(args, out)))


def speed(module, driver, op, choice, emulate):
    """{"rows": [{direction, ms, gbs, tflops}], "wrong": lines} of one implementation; no rows where it is wrong."""
    spec, (args, dout, want, costs) = OPS[op], prepared(op, emulate)
    make = torch_runs if choice == "torch" else device_runs
    runs, results = make(module, driver, spec, choice, args, dout)
    wrong = []
    if choice != "torch":
        allowed = ALLOWED["bfloat16"] if in_bfloat16(choice) or "wgmma" in choice else LARGE
        wrong = disagreements(results(), want, allowed)
    rows = [] if wrong else [row(driver, direction, call, *costs[direction == "backward"])
                             for direction, call in runs.items()]
    return {"op": op, "choice": choice, "wrong": wrong, "rows": rows}


def row(driver, direction, call, flops, size):
    found = gpu_time.milliseconds(driver, call)
    return {"direction": direction, **found, "gbs": round(size / found["ms"] / 1e6, 1),
            "tflops": round(flops / found["ms"] / 1e9, 2)}


def wanted(spec, ops, args, result, dout):
    """What the CPU's kernels give, in float64: {name: array}. args: as they are after an update."""
    if spec.kind == "update":
        found = {name: args[name] for name in IN_PLACE if name in args}
    elif spec.kind == "pair":
        grads = getattr(ops, functions(spec)[1])(dout, result[1])
        found = named_outs(result[0]) | named_grads(spec, grads)
    else:
        found = {"out": np.atleast_1d(result)}
    return {name: array.astype("float64") for name, array in found.items()}


def named_grads(spec, grads):
    grads = grads if isinstance(grads, tuple) else (grads,)
    return {f"d{name}": grad for name, grad in zip(spec.differentiable, grads)}


def device_runs(module, driver, spec, choice, args, dout):
    """{direction: a call on arrays of the device}, () -> {name: NumPy array} of the first calls' results."""
    ops = select({spec.name: choice})
    first, *backward = (getattr(ops, name) for name in functions(spec))
    args, dout = gpu_arrays.to_device(module, args), gpu_arrays.to_device(module, dout)

    def forward():
        return first(*args.values())

    try:
        result = forward()
    except ValueError as error:
        if "got one on the device" not in str(error):
            raise
        raise NotBuilt("takes no arrays on the device") from error
    if spec.kind == "update":
        return {"update": forward}, lambda: {name: gpu_arrays.to_host(args[name]) for name in IN_PLACE if name in args}
    if not backward:
        return {"forward": forward}, lambda: {"out": np.atleast_1d(gpu_arrays.to_host(result))}
    runs = {"forward": forward, "backward": lambda: backward[0](dout, result[1])}
    return runs, lambda: gpu_arrays.to_host(named_outs(result[0]) | named_grads(spec, backward[0](dout, result[1])))


def torch_runs(_, driver, spec, choice, args, dout):
    """The same of PyTorch, by the SPEC's function; its results are not looked at."""
    import torch

    from .oracle_torch import transposed
    torch.cuda.set_stream(torch.cuda.ExternalStream(driver.stream))

    def tensor(name, value):
        if not isinstance(value, np.ndarray):
            return value
        value = transposed(spec, name, torch.from_numpy(value)).contiguous().cuda()
        return value.requires_grad_(name in spec.differentiable)

    tensors = {name: tensor(name, value) for name, value in args.items()}
    if spec.kind == "update":
        return {"update": spec.torch(torch, **tensors)[0]}, None
    runs = {"forward": lambda: spec.torch(torch, **tensors)}
    if spec.kind == "pair":
        out, leaves = runs["forward"](), [tensors[name] for name in spec.differentiable]
        dout = tuple(torch.from_numpy(part).cuda() for part in dout) if isinstance(dout, tuple) \
            else torch.from_numpy(np.asarray(dout)).cuda()
        runs["backward"] = lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)
    return runs, None
