"""Attention at growing sequence lengths: time, which is quadratic in T, and memory, which must not be.

Forward and backward of one causal attention, minillm against PyTorch's scaled_dot_product_attention, each length in
fresh processes: what counts is by how much the peak of the process grows from before the inputs are made. The T x T
scores of one head alone would be 268 MB at T = 8192.
"""
import time

import numpy as np

from minillm.kernels.select import OPS, Dims

from .step import entrant, row
from .workers import memory_status, peak_rss, race

LENGTHS, C, NH = (512, 1024, 2048, 4096, 8192), 256, 4


def rows(options, peaks, progress=None):
    """Run every length; returns rows, wrong and skipped as the other benchmarks do."""
    from importlib.util import find_spec
    entrants = [entrant("minillm", "attention_lengths", side="minillm")]
    if find_spec("torch"):
        entrants.append(entrant("torch", "attention_lengths", side="torch"))
    found, wrong, lengths = [], {}, parse(options.lengths)
    for T in lengths:
        job = {"T": T, "threads": options.threads}
        results, bad, _ = race(entrants, "attend", job, same_sums, len(entrants), options.repeat)
        found += [length_row(T, result, peaks) for result in results]
        wrong |= {f"T={T} {name}": lines for name, lines in bad.items()}
        if progress:
            progress(lengths.index(T) + 1, len(lengths), f"T={T}")
    return found, wrong, {}


def parse(text):
    """"512,1024" -> [512, 1024]. Raises ValueError."""
    parts = text.split(",") if text else map(str, LENGTHS)
    try:
        lengths = [int(part) for part in parts]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise ValueError(f"--lengths must be positive numbers, separated by commas: got {text!r}")
    return lengths


def length_row(T, result, peaks):
    work = {"gflops": sum(OPS["attention"].flops(Dims(1, T, C, NH, 2))), "tokens": T}
    made = row("attention_lengths", f"B=1 T={T} C={C} NH={NH}", {"options": {"dtype": "float32"}}, result, work, peaks)
    return made | {"direction": "forward+backward", "tokens": T, "memory_mb": result["values"][0][0]}


def same_sums(candidate, values, first):
    """What is wrong with a candidate's sums of |out| and |dqkv|, or an empty string."""
    for name, got, right in zip(("out", "dqkv"), values[0][1:], first[0][1:]):
        if not abs(got - right) <= 1e-4 * right:
            return f"the sum of |{name}| is {got:.7g}, expected {right:.7g}"
    return ""


def attend(job):
    """In a worker: () -> [MB that the peak of this process grew, sum |out|, sum |dqkv|] of one forward and backward."""
    function = {"minillm": minillm_side, "torch": torch_side}[job["side"]](job["threads"])
    function(*inputs(64))                                # code and threads are in memory
    time.sleep(0.1)
    before = memory_status("VmRSS")
    qkv, dout = inputs(job["T"])

    def run():
        out, dqkv = function(qkv, dout)
        return [(peak_rss() - before) / 1e6, float(abs(out).sum(dtype="float64")),
                float(abs(dqkv).sum(dtype="float64"))]

    return run


def inputs(T):
    """qkv (1, T, 3C), dout (1, T, C)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((1, T, 3 * C), "float32"), rng.standard_normal((1, T, C), "float32")


def minillm_side(threads):
    from minillm.kernels.select import select
    ops = select("auto")

    def run(qkv, dout):
        out, cache = ops.attention_forward(qkv, NH)
        return out, ops.attention_backward(dout, cache)

    return run


def torch_side(threads):
    import torch
    torch.set_num_threads(threads)

    def run(qkv, dout):
        x = torch.from_numpy(qkv).requires_grad_()
        out = OPS["attention"].torch(torch, x, NH)
        (dqkv,) = torch.autograd.grad(out, x, torch.from_numpy(dout))
        return out.detach().numpy(), dqkv.numpy()

    return run
