"""`python -m benchmarks.gpu --out DIR`: correctness and speed of the CUDA attention on a GPU, in ten minutes.

In this order, each step saved before the next begins: the device and its measured ceilings; each PTX wrapper against
its emulated twin (recorded as DIR/gpu_instructions.npz: put it into tests/fixtures and every machine goes on checking
it); results against float64; compute-sanitizer; timing against PyTorch; NumPy and C++ beside it. The result is
DIR/gpu.json, a table DIR/gpu.md and, with matplotlib, DIR/gpu.png. Exit code 1 if anything is wrong. `--emulate` goes
through the same steps on the emulator, small and without timing: it tests this file, not the GPU.
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from minillm.kernels import select as registry
from minillm.storage.atomic import atomic_write

from . import gpu_check, gpu_time

MINUTES = 9.0                               # for everything; timing stops in time
SANITIZERS = ("memcheck", "racecheck", "initcheck")


def parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--emulate", action="store_true", help="small, on the emulator: a test of this program")
    parser.add_argument("--one-case", action="store_true", help=argparse.SUPPRESS)      # what the sanitizers watch
    return parser


def sanitize():
    """{tool: "clean" or what it said}; compute-sanitizer runs this program's smallest case."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return {"compute-sanitizer": "not installed"}
    program = [sys.executable, "-m", "benchmarks.gpu", "--out", ".", "--one-case"]
    found = {}
    for name in SANITIZERS:
        try:
            done = subprocess.run([tool, "--tool", name, "--error-exitcode", "9", *program], capture_output=True,
                                  text=True, timeout=90, check=False)
            found[name] = "clean" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]
        except subprocess.TimeoutExpired:
            found[name] = "took longer than 90 s"
    return found


def one_case(module):
    """Every variant once, forward and backward, at a size that has edges; returns the exit code."""
    rows = [gpu_check.check_case(module, variant, gpu_check.VARIANTS[variant][0], 72, 70, True)
            for variant in gpu_check.variants(module)]
    return 0 if all(row["right"] for row in rows) else 1


def beside(module, backend, T):
    """Seconds of one forward and backward, B=1, 12 heads of 64, float32, NumPy arrays in and out: {choice: (f, b)}."""
    rng = np.random.default_rng(0)
    qkv, dout = (rng.standard_normal((1, T, width)).astype("float32") for width in (3 * 768, 768))
    variants = [variant for variant in gpu_check.variants(module) if variant in gpu_check.TENSOR_CORES]
    found = {}
    for choice in ("numpy", "cpu", backend, *(f"{backend}/{variant}" for variant in variants)):
        if choice not in registry.choices("attention"):
            continue
        ops = registry.select({"attention": choice})
        best = []
        for _ in range(3):
            start = time.perf_counter()
            _, cache = ops.attention_forward(qkv, 12)
            middle = time.perf_counter()
            ops.attention_backward(dout, cache)
            best.append((middle - start, time.perf_counter() - middle))
        found[choice] = {"forward_s": min(f for f, _ in best), "backward_s": min(b for _, b in best)}
    found[backend]["of_which"] = registry.cuda(backend).last_seconds()       # of the last backward: copies apart
    return found


def table(document):
    """The timing rows as Markdown: TFLOP/s, a line a size, a column a candidate."""
    rows = document.get("timing", [])
    names = list(dict.fromkeys(row["name"] for row in rows))
    lines = [f"# CUDA attention on {document['device'].get('name', 'the emulator')}", "",
             gpu_time.__doc__.split("\n\n")[1].strip(), "",
             "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]

    def size(row):
        return row["direction"], row["HS"], row["causal"], row["T"]
    for key in dict.fromkeys(map(size, rows)):
        cells = {row["name"]: row["tflops"] for row in rows if size(row) == key}
        label = f"{key[0]} D={key[1]} {'causal' if key[2] else 'full'} T={key[3]}"
        lines.append(f"| {label} | " + " | ".join(str(cells.get(name, "-")) for name in names) + " |")
    wrong = [row for row in document["correctness"] if not row["right"]]
    total = len(document["correctness"])
    lines += ["", f"Correctness: {total - len(wrong)} of {total} cases right.",
              f"Instructions that agree with their emulated twins: {document['conformance']}",
              f"Sanitizers: {document['sanitizer']}"]
    return "\n".join(lines) + "\n"


def plot(document, path):
    """TFLOP/s over T, causal; nothing without matplotlib or without timings."""
    rows = [row for row in document.get("timing", []) if row["causal"]]
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    if not rows:
        return
    panels = [(direction, HS) for direction in ("forward", "backward") for HS in gpu_time.HEAD_SIZES]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharex=True)
    for axis, (direction, HS) in zip(axes.flat, panels):
        mine = [row for row in rows if (row["direction"], row["HS"]) == (direction, HS)]
        for name in dict.fromkeys(row["name"] for row in mine):
            points = [(row["T"], row["tflops"]) for row in mine if row["name"] == name]
            axis.plot(*zip(*points), marker="o", label=name)
        axis.set(title=f"{direction}, causal, D={HS}", xscale="log", xlabel="T", ylabel="TFLOP/s")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def faults(document):
    """Lines on everything that is wrong; the exit code hangs on there being none."""
    found = [f"{name}: {count} agree with the emulator" for name, count in document["conformance"].items()
             if len(set(count.split("/"))) != 1]
    found += [f"wrong: {row}" for row in document["correctness"] if not row["right"]]
    found += [f"{name}: {text[:300]}" for name, text in document["sanitizer"].items()
              if text not in ("clean", "not installed")]
    return found


def save(document, folder):
    with atomic_write(folder / "gpu.json") as file:
        json.dump(document, file, indent=1)


def run_all_steps(module, sim, folder, emulate, say, clock=time.monotonic):
    """All steps; returns the document, saved after each."""
    deadline = clock() + 60 * MINUTES
    document = {"emulated": emulate, "device": {} if emulate else gpu_time.device()}
    say(f"device: {document['device'] or 'the emulator'}")
    document["conformance"], fixture = gpu_check.conformance(module, sim)
    np.savez_compressed(folder / "gpu_instructions.npz", **fixture)
    save(document, folder)
    say(f"instructions: {document['conformance']}")
    document["correctness"] = gpu_check.correctness(module, small=emulate)
    save(document, folder)
    say(f"correctness: {sum(row['right'] for row in document['correctness'])} of {len(document['correctness'])}")
    document["sanitizer"] = {} if emulate else sanitize()
    say(f"sanitizers: {document['sanitizer']}")
    if not emulate:
        document["timing"], document["left_out"] = gpu_time.timing(module, deadline, clock)
        save(document, folder)
    document["beside"] = beside(module, "cudasim" if emulate else "cuda", 16 if emulate else 1024)
    save(document, folder)
    with atomic_write(folder / "gpu.md") as file:
        file.write(table(document))
    plot(document, folder / "gpu.png")
    return document


def main(argv=None):
    """Returns the exit code: 0 right, 1 something is wrong, 2 cannot run."""
    options = parser().parse_args(argv)
    sim = registry.cuda("cudasim")
    module = sim if options.emulate else registry.cuda("cuda")
    problem = "not built" if module is None or sim is None else module.driver_problem()
    if problem:
        print(f"error: the CUDA kernels cannot run here: {problem}", file=sys.stderr)
        return 2
    if options.one_case:
        return one_case(module)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    document = run_all_steps(module, sim, folder, options.emulate, lambda line: print(line, flush=True))
    wrong = faults(document)
    print("\n".join(wrong) or f"all right; results in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
