"""The training step of GPT-2, minillm against PyTorch: forward, backward, clipping and AdamW, from the same weights.

PyTorch takes part as a user starts it, and tuned: threads bound to cores, and an allocator that keeps freed memory
instead of giving it back and faulting it in again. That environment alone can double its speed, so the tuned one is the
peer that counts. Before anything is timed, three steps must give the same losses: the first checks the forward, the
next two the backward, the clipping and the optimizer.

FLOPs: 6 a parameter and token (2 forward, 4 backward; position embeddings are gathered, no GEMM), and attention's.
"""
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minillm.config import GPTConfig
from minillm.kernels.select import OPS, Dims, multiplies_by_tiles
from minillm.models.gpt2 import initialise
from minillm.models.params import gpt_shapes

from .machine import meminfo
from .workers import fitting, race

SIZES = {"124M": {}, "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64, "vocab_size": 257}}
TUNED = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores", "MALLOC_MMAP_THRESHOLD_": "8589934592",
         "MALLOC_TRIM_THRESHOLD_": "137438953472", "MALLOC_TOP_PAD_": "268435456"}
UNASKED = ("minillm numpy", "minillm bf16 (copy)")           # take part only where --only names them
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}     # relative, on the first loss; ten times that after two updates


def candidates(compiled=False, installed=None):
    """Everybody who can run here, as dicts for `workers`; the first is what the others are compared with."""
    everybody = {"minillm": entrant("minillm", "gpt_minillm", backend="auto"),
                 "minillm bf16": entrant("minillm bf16", "gpt_minillm", dtype="bfloat16", backend="cpu/bf16",
                                         copy=multiplies_by_tiles()),
                 "minillm bf16 (copy)": entrant("minillm bf16 (copy)", "gpt_minillm", dtype="bfloat16",
                                                backend="cpu/bf16", copy=True),
                 "minillm numpy": entrant("minillm numpy", "gpt_minillm", backend="numpy")}
    if find_spec("torch") if installed is None else installed:
        for mode in ("eager", "compile") if compiled else ("eager",):
            for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
                for label, env in (("", {}), (" tuned", TUNED)):
                    name = f"torch {mode} {short}{label}"
                    everybody[name] = entrant(name, "gpt_torch", env, dtype=dtype, compile=mode == "compile")
    return everybody


def entrant(name, module, env=None, dtype="float32", **options):
    """A candidate; `optional` marks the one that may fail for want of a compiler."""
    return {"name": name, "module": module, "env": env or {}, "options": {"dtype": dtype, **options},
            "optional": bool(options.get("compile"))}


def chosen(everybody, only):
    """The candidates that --only names, or all but UNASKED. Raises ValueError for a name that does not exist."""
    if not only:
        return [candidate for name, candidate in everybody.items() if name not in UNASKED]
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in everybody:
            raise ValueError(f"--only: unknown candidate {name!r}: expected one of {', '.join(everybody)}")
    return [everybody[name] for name in names]


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    config, B, T = sizes(options.size, options.batch, options.tokens or 64)
    entrants = chosen(candidates(options.compile), options.only)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T + 1))
    batch = {"batch": [tokens[:, :-1].tolist(), tokens[:, 1:].tolist()], "lr": 1e-4, "clip": 1.0, "weight_decay": 0.1}
    together = fitting(memory(config, B, T), meminfo().get("MemAvailable", 0))
    with job_for(config, options.threads, **batch) as job:
        results, wrong, skipped = race(entrants, "step", job, same_loss, together, options.repeat, progress)
    flops = step_flops(config, B, T)
    dims = f"{options.size} B={B} T={T}"
    found = [row("step", dims, by_name(entrants, r["candidate"]), r, {"gflops": flops, "tokens": B * T}, peaks)
             | {"losses": r["values"]} for r in results]
    return found, wrong, skipped


def sizes(size, B, T):
    """The model's configuration, with room for T tokens. Raises ValueError for an unknown size, or B or T below 1."""
    if size not in SIZES:
        raise ValueError(f"--size must be one of {', '.join(SIZES)}: got {size!r}")
    for name, value in (("--batch", B), ("--tokens", T)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    config = GPTConfig(**SIZES[size])
    return GPTConfig(**SIZES[size] | {"block_size": max(config.block_size, T)}), B, T


@contextmanager
def job_for(config, threads, **more):
    """The job's dict, with the initial weights in a temporary file that every worker reads."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        params = initialise(config, seed=0, dtype=np.float32)
        params.flat.tofile(weights)
        yield {"config": asdict(config), "threads": threads, "weights": str(weights),
               "shapes": list(params.shapes.items()), **more}


def same_loss(candidate, values, first):
    """What is wrong with the losses of a candidate's warm-up steps, or an empty string."""
    tolerance = TOLERANCE[candidate["options"]["dtype"]]
    for number, (got, right, allowed) in enumerate(zip(values, first, (tolerance, 10 * tolerance, 10 * tolerance)), 1):
        error = abs(got - right) / abs(right)
        if not error <= allowed:
            return (f"loss of step {number} is {got:.6g}, expected {right:.6g}: "
                    f"relative error {error:.1e}, allowed {allowed:.0e}")
    return ""


def step_flops(config, B, T):
    """FLOPs of one training step."""
    multiplied = sum(np.prod(shape) for name, shape in gpt_shapes(config).items() if name != "wpe.weight")
    attention = sum(OPS["attention"].flops(Dims(B, T, config.n_embd, config.n_head, config.vocab_size)))
    return float(6 * multiplied * B * T + config.n_layer * attention)


def memory(config, B, T):
    """Bytes that one worker is expected to need at most: weights, gradients, moments, logits, activations."""
    size = sum(int(np.prod(shape)) for shape in gpt_shapes(config).values())
    return 24 * size + B * T * (12 * config.vocab_size + 150 * config.n_embd * config.n_layer) + 5 * 10 ** 8


def by_name(entrants, name):
    return next(candidate for candidate in entrants if candidate["name"] == name)


def row(op, dims, candidate, result, work, peaks):
    """One line of the report. work: {"gflops": FLOPs, "gbs": bytes, "tokens": tokens} of one run, those that matter."""
    timing, against, dtype = result["timing"], result["against"], candidate["options"]["dtype"]
    rates = {key: work[key] / timing.median / 1e9 if key in work else None for key in ("gflops", "gbs")}
    limits = {"compute": (rates["gflops"], (peaks or {}).get(dtype, {}).get("gflops")),
              "memory": (rates["gbs"], (peaks or {}).get("memory", {}).get("gbs"))}
    shares = {bound: 100 * rate / peak for bound, (rate, peak) in limits.items() if rate and peak}
    bound = max(shares, key=shares.get, default=None)
    return {"op": op, "dims": dims, "dtype": dtype, "direction": op, "candidate": result["candidate"],
            "median_ms": 1e3 * timing.median, "low_ms": 1e3 * timing.low, "high_ms": 1e3 * timing.high,
            "samples": timing.samples, **rates, "peak_percent": shares.get(bound), "bound": bound,
            "tokens_per_second": work["tokens"] / timing.median, "peak_rss_mb": result["peak_rss"] / 1e6,
            "x_minillm": against and against.median / timing.median}
