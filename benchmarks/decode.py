"""Generation, one token at a time, minillm against PyTorch: batch 1, a cache full of context, one more token.

Every weight is read once for each token and used in two operations, so the limit is the memory: 4 bytes a parameter at
float32, 2 at bfloat16, over the measured bandwidth. (wpe is not read, but for one row.)
"""
import numpy as np

from minillm.params import gpt_shapes

from .machine import meminfo
from .step import by_name, candidates, chosen, job_for, memory, row, sizes
from .workers import fitting, race

BYTES = {"float32": 4, "bfloat16": 2}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report and {candidate: why it was left out}, wrong ones included."""
    config, B, T = sizes(options.size, 1, options.tokens or min(512, sizes(options.size, 1, 1)[0].block_size))
    entrants = chosen(candidates(), options.only)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T)).tolist()
    together = fitting(memory(config, B, T), meminfo().get("MemAvailable", 0))
    with job_for(config, options.threads, tokens=tokens) as job:
        results, left_out = race(entrants, "decode", job, same_logits, together, max(30, options.repeat or 0), progress)
    dims = f"{options.size} B={B} T={T}"
    return [decode_row(dims, config, by_name(entrants, r["candidate"]), r, peaks) for r in results], left_out


def decode_row(dims, config, candidate, result, peaks):
    read = sum(int(np.prod(shape)) for name, shape in gpt_shapes(config).items() if name != "wpe.weight")
    work = {"gflops": 2 * read, "gbs": BYTES[candidate["options"]["dtype"]] * read, "tokens": 1}
    return row("decode", dims, candidate, result, work, peaks)


def same_logits(candidate, values, first):
    """What is wrong with the mean magnitude of a candidate's logits, or an empty string."""
    error, allowed = abs(values[0] - first[0]) / abs(first[0]), TOLERANCE[candidate["options"]["dtype"]]
    if not error <= allowed:
        return f"mean logit is {values[0]:.6g}, expected {first[0]:.6g}: relative error {error:.1e}, allowed {allowed:.0e}"
    return ""
