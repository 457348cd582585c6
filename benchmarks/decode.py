"""Generation, one token at a time, minillm against PyTorch: batch 1, a cache full of context, one more token.

Every weight is read once for each token and used in two operations, so the limit is the memory: 4 bytes a parameter at
float32, 2 at bfloat16, over the measured bandwidth. (wpe is not read, but for one row.)
"""
import numpy as np

from minillm.params import gpt_shapes

from .machine import meminfo
from .step import TOLERANCE, by_name, candidates, chosen, job_for, memory, row, sizes
from .workers import fitting, race

ROUNDS = 30             # tokens per candidate, at least
BYTES = {"float32": 4, "bfloat16": 2}


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    config, B, T = sizes(options.size, 1, options.tokens or min(512, sizes(options.size, 1, 1)[0].block_size))
    everybody = candidates()
    del everybody["minillm bf16"]           # a way to train: here it would round every weight for every token
    entrants = chosen(everybody, options.only)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T)).tolist()
    together = fitting(memory(config, B, T), meminfo().get("MemAvailable", 0))
    with job_for(config, options.threads, tokens=tokens) as job:
        rounds = max(ROUNDS, options.repeat or 0)
        results, wrong, skipped = race(entrants, "decode", job, same_logits, together, rounds, progress)
    dims = f"{options.size} B={B} T={T}"
    found = [decode_row(dims, config, by_name(entrants, r["candidate"]), r, peaks) for r in results]
    return found, wrong, skipped


def decode_row(dims, config, candidate, result, peaks):
    read = sum(int(np.prod(shape)) for name, shape in gpt_shapes(config).items() if name != "wpe.weight")
    work = {"gflops": 2 * read, "gbs": BYTES[candidate["options"]["dtype"]] * read, "tokens": 1}
    return row("decode", dims, candidate, result, work, peaks)


def same_logits(candidate, values, first):
    """What is wrong with a candidate's first logits, or an empty string; errors count relative to the largest."""
    got, right = np.array(values[0]), np.array(first[0])
    error, allowed = np.abs(got - right).max() / np.abs(right).max(), TOLERANCE[candidate["options"]["dtype"]]
    if not error <= allowed:
        i = int(np.abs(got - right).argmax())
        return f"logit {i} is {got[i]:.6g}, expected {right[i]:.6g}: relative error {error:.1e}, allowed {allowed:.0e}"
    return ""
