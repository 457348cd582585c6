"""Autoregressive decoding: minillm at float32, bfloat16, int8 and int4 against transformers with PyTorch, CTranslate2,
llama.cpp and ONNX Runtime, each where it is installed.

Decoding is memory-bandwidth bound: a token reads every weight once, and the KV cache of its context. So its floor is
the time that a plain read of as many bytes takes, and that read takes turns with the candidates. Three races: steps of
one sequence; ours of eight sequences batched, for which one pass over the weights serves all; and the prefill of a
prompt, which is compute bound. All start from the same random weights, and their logits must agree before anything is
timed.
"""
import numpy as np

from minillm.models.params import gpt_shapes

from .machine import meminfo
from .step import by_name, entrant, job_for, row, sizes
from .workers import fitting, race

ROUNDS, STEPS = 10, 4        # runs of a candidate, tokens in a run
BATCH, CONTEXT, PROMPT = 8, 128, 512
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 0.5 + 4 / 32}          # with a scale for 32 weights
SHORT = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8", "int4": "int4"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "int8": 6e-2, "int4": 0.5}      # of the largest logit
HALVES = {"gpt_llama_cpp": 1e-3}      # at least: its KV cache and the table of its GELU are float16 in every form
PEERS = {           # who else takes part, where installed: name -> module, its forms, how many sequences at once
    "transformers": ("gpt_transformers", ("float32", "bfloat16"), (1,)),
    "ctranslate2": ("gpt_ctranslate2", ("float32", "bfloat16", "int8"), (1, BATCH)),
    "llama.cpp": ("gpt_llama_cpp", ("float32", "bfloat16", "int8", "int4"), (1,)),
    "onnxruntime": ("gpt_onnx", ("float32", "int8"), (1, BATCH))}


def rows(options, peaks, progress=None):
    """Yields, race after race, rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    context = options.tokens or CONTEXT
    races = (("decode", 1, context + STEPS, STEPS), ("decode", BATCH, context + STEPS, STEPS),
             ("prefill", 1, PROMPT, 1))
    for task, B, T, steps in races:
        found, wrong, skipped = one_race(options, peaks, task, B, min(T, longest(options)), steps, progress)
        yield with_ratios(found), wrong, skipped


def longest(options):
    return sizes(options.size, 1, 1)[0].block_size


def one_race(options, peaks, task, B, T, steps, progress):
    """One task for all who can do it."""
    config, B, T = sizes(options.size, B, T)
    entrants = chosen(candidates(config, task, B, T), options.only)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T)).tolist()
    together = fitting(12 * parameters(config), meminfo().get("MemAvailable", 0))
    with job_for(config, options.threads, tokens=tokens, steps=steps) as job:
        results, wrong, skipped = race(entrants, task, job, same_logits, together, options.repeat or ROUNDS, progress)
    dims = f"{options.size} B={B} T={T}"
    found = [one_row(task, dims, config, by_name(entrants, r["candidate"]), r, peaks, (B, T, steps)) for r in results]
    return found, wrong, skipped


def candidates(config, task, B, T):
    """Who takes part in a task, as dicts for `workers`; the first is what the others' logits are compared with."""
    found = {}
    for dtype in BYTES:
        backend = "auto/bf16" if dtype == "bfloat16" else "auto"
        name = f"minillm {SHORT[dtype]}"
        found[name] = entrant(name, "gpt_minillm", dtype=dtype, backend=backend)
    for peer, (module, dtypes, batches) in PEERS.items():
        for dtype in dtypes if B in batches else ():
            name = f"{peer} {SHORT[dtype]}"
            found[name] = entrant(name, module, dtype=dtype) | {"optional": True}
    for dtype in BYTES if task == "decode" else ():
        name = f"plain read {SHORT[dtype]}"
        found[name] = entrant(name, "plain_read", dtype=dtype, bytes=bytes_of_step(config, dtype, B, T))
    return found


def chosen(everybody, only):
    """The candidates that --only names, or all; those that are not in this race are left out of it."""
    if not only:
        return list(everybody.values())
    picked = [everybody[name.strip()] for name in only.split(",") if name.strip() in everybody]
    if not picked:
        raise ValueError(f"--only: expected some of {', '.join(everybody)}: got {only}")
    return picked


def parameters(config):
    """Numbers that a step reads: all but the position embeddings."""
    return sum(int(np.prod(shape)) for name, shape in gpt_shapes(config).items() if name != "wpe.weight")


def bytes_of_step(config, dtype, B, T):
    """Weights once, and the float32 keys and values of every sequence."""
    return int(BYTES[dtype] * parameters(config)) + 8 * config.n_layer * config.n_embd * B * T


def one_row(task, dims, config, candidate, result, peaks, shape):
    """A row of the report; times are of one step."""
    (B, T, steps), dtype = shape, candidate["options"]["dtype"]
    result = result | {"timing": divided(result["timing"], steps), "against": divided(result["against"], steps)}
    tokens = B * (T if task == "prefill" else 1)
    work = {"gflops": 2 * parameters(config) * tokens, "tokens": tokens}
    if task == "prefill":                        # of the prompt's last token only
        work["gflops"] -= 2 * config.vocab_size * config.n_embd * (tokens - 1)
    else:
        work["gbs"] = bytes_of_step(config, dtype, B, T)
    if candidate["name"].startswith("plain"):
        del work["gflops"]
    return row(task, dims, candidate, result, work, peaks)


def divided(timing, steps):
    return timing and type(timing)(timing.median / steps, timing.low / steps, timing.high / steps, timing.samples)


def with_ratios(found):
    """Adds what the issue is about: % of the floor of the same race and precision, x transformers at float32."""
    for one in found:
        same = [other for other in found if (other["op"], other["dims"]) == (one["op"], one["dims"])]
        times = {other["candidate"]: other["median_ms"] for other in same}
        floor, peer = times.get(f"plain read {SHORT[one['dtype']]}"), times.get("transformers fp32")
        one["floor_percent"] = floor and 100 * floor / one["median_ms"]
        one["x_transformers"] = peer and peer / one["median_ms"]
    return found


def same_logits(candidate, values, first):
    """What is wrong with a candidate's first logits, or an empty string; errors count relative to the largest."""
    if candidate["module"] == "plain_read":
        return ""
    got, right = np.array(values[0]), np.array(first[0])
    error = np.abs(got - right).max() / np.abs(right).max()
    allowed = max(TOLERANCE[candidate["options"]["dtype"]], HALVES.get(candidate["module"], 0))
    if not error <= allowed:
        i = np.unravel_index(np.abs(got - right).argmax(), got.shape)
        return (f"logit {[int(j) for j in i]} is {got[i]:.6g}, expected {right[i]:.6g}: relative error {error:.1e}, "
                f"allowed {allowed:.0e}")
    return ""
