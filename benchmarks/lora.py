"""The training step of LoRA adapters beside the whole model's step and PEFT's, for language modelling and for DPO.

A GPT of 6 layers x 384, rank 8 on every linear layer of a block. FLOPs: of a layer's three GEMMs, forward, dx and
dweight, a frozen one has two, and AdamW passes over a few hundredths of the parameters; so two thirds of a whole step
and a little for the updates is what can be expected. PEFT takes part as its users start it (transformers' GPT-2,
autocast, fused AdamW) and tuned, as PyTorch does in step.py. All begin from the same weights and the same adapters, and
three losses must agree before anything is timed. In DPO log p under the reference is computed once, on both sides.
"""
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minillm.config import GPTConfig
from minillm.models.adapted import LoraModel
from minillm.models.gpt2 import GPT
from minillm.models.params import Params

from .step import SIZES, TUNED, by_name, chosen, entrant, job_for, row, same_loss
from .workers import race

MODEL = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "vocab_size": 8192}
RANK, ALPHA, BETA = 8, 16.0, 0.1
WHOLE = "whole model "                       # candidates that train all weights, to which the adapters are compared


def rows(options, peaks, progress=None):
    """Run the benchmark; returns rows for the report, {candidate: what is wrong}, {candidate: why it was skipped}."""
    return races("lora", options, peaks, progress)


def dpo_rows(options, peaks, progress=None):
    """The same for the step of DPO."""
    return races("dpo", options, peaks, progress)


def races(task, options, peaks, progress):
    """A race in each type, so that ratios are between neighbours in the same type."""
    size = "tiny" if options.size == "tiny" else "6x384"
    config = GPTConfig(**SIZES["tiny"] if size == "tiny" else MODEL)
    B, T = options.batch, options.tokens or config.block_size
    if B % 2 or T > config.block_size:
        raise ValueError(f"--batch must be even and --tokens at most {config.block_size}: got {B} and {T}")
    found, wrong, skipped = [], {}, {}
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T + 1)).tolist()
    entrants = chosen(candidates(), options.only)
    with adapters_for(config, options.threads, tokens) as job:
        for dtype in ("bfloat16", "float32"):
            racing = [candidate for candidate in entrants if candidate["options"]["dtype"] == dtype]
            results, *rest = race(racing, task, job, same, len(racing), options.repeat, progress) if racing else ([],)
            found += [row(f"{task} r={RANK}", f"{size} B={B} T={T}", by_name(racing, r["candidate"]), r,
                          {"tokens": B * T}, peaks) | {"losses": r["values"]} for r in results]
            for all_of, part in zip((wrong, skipped), rest):
                all_of.update(part)
    return found, wrong, skipped


def candidates():
    """Everybody, as dicts for `workers`; the first of a type is what the others' losses and times are compared with."""
    everybody = {}
    for short, dtype, backend in (("bf16", "bfloat16", "cpu/bf16"), ("fp32", "float32", "auto")):
        for name, whole in ((f"minillm {short}", False), (f"{WHOLE}{short}", True)):
            everybody[name] = entrant(name, "gpt_minillm", dtype=dtype, backend=backend, whole=whole)
        for label, env in (("", {}), (" tuned", TUNED)) if find_spec("peft") else ():
            name = f"peft {short}{label}"
            everybody[name] = entrant(name, "gpt_peft", env, dtype=dtype)
    return everybody


def same(candidate, values, first):
    """As in step.py; a whole model begins without adapters, and so elsewhere."""
    return "" if candidate["options"].get("whole") else same_loss(candidate, values, first)


@contextmanager
def adapters_for(config, threads, tokens):
    """The job's dict, with the weights and the adapters in temporary files; b is no longer zero in them."""
    with job_for(config, threads, tokens=tokens, lr=1e-4, clip=1.0, weight_decay=0.0, rank=RANK, alpha=ALPHA,
                 beta=BETA) as job:
        params = Params(dict(job["shapes"]))
        adapter = LoraModel(GPT(config, params=params), RANK, ALPHA)
        rng = np.random.default_rng(1)
        for name, view in adapter.params.items():
            view[:] = 0.02 * rng.standard_normal(view.shape) if name.endswith(".b") else view
        path = Path(job["weights"]).with_name("adapters")
        adapter.params.flat.tofile(path)
        yield job | {"adapters": str(path), "adapter_shapes": list(adapter.params.shapes.items())}
