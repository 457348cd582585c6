"""A training step of GPT-2 124M on the GPU: ms, tokens a second, MFU; ours, and PyTorch's beside it.

Forward, backward, clipping and AdamW from the same random weights on one batch, timed on the clock around whole steps,
each of which ends with its loss on the host. MFU counts step_flops (benchmarks/step.py) against the bf16 peak.
"""
import statistics
import time
from dataclasses import asdict

import numpy as np

from minillm.kernels.device import missing
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT, initialise
from minillm.ops.table import OPS
from minillm.train.device import to_device
from minillm.train.loop import step_for

from .gpt_minillm import Always, stepper
from .gpu_runner import NotBuilt
from .step import TOLERANCE, step_flops
from .step import sizes as model_sizes

WARM_UP, STEPS = 3, 12
LIMIT_S = 20                                # of timed steps, where they are slow


def sizes(emulate):
    """[size, B, T, dtype]."""
    if emulate:
        return [["tiny", 1, 8, "float32"]]
    return [["124M", 8, 1024, "bfloat16"], ["124M", 8, 1024, "float32"], ["124M", 16, 1024, "bfloat16"]]


def case(module, who, size, B, T, dtype, emulate):
    """One row."""
    config, B, T = model_sizes(size, B, T)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (B, T + 1))
    params = initialise(config, seed=0, dtype=np.float32)
    job = {"batch": [tokens[:, :-1].tolist(), tokens[:, 1:].tolist()], "lr": 1e-4, "clip": 1.0, "weight_decay": 0.1,
           "dtype": dtype, "emulate": emulate}
    run = (by_torch if who == "torch" else by_minillm)(module, config, params, job)
    losses = [run() for _ in range(1 if emulate else WARM_UP)]
    seconds, until = [], time.perf_counter() + LIMIT_S
    while len(seconds) < (2 if emulate else STEPS) and time.perf_counter() < until:
        start = time.perf_counter()
        losses.append(run())
        seconds.append(time.perf_counter() - start)
    ms = 1e3 * statistics.median(seconds)
    return {"name": who, "size": size, "B": B, "T": T, "dtype": dtype, "ms": round(ms, 3), "steps": len(seconds),
            "range_ms": [round(1e3 * min(seconds), 3), round(1e3 * max(seconds), 3)],
            "tokens_per_s": round(B * T / ms * 1e3), "tflops": round(step_flops(config, B, T) / ms / 1e9, 2),
            "losses": [round(loss, 6) for loss in losses[:4]], "wrong": implausible(losses, config.vocab_size)}


def implausible(losses, vocabulary):
    """Random weights know nothing, so the first loss is near log V; and the same batch again and again is learned."""
    if not abs(losses[0] - np.log(vocabulary)) < 0.5:
        return f"the first loss is {losses[0]:.4f}, expected about log {vocabulary} = {np.log(vocabulary):.4f}"
    return "" if losses[-1] < losses[0] else f"the loss does not fall: {losses[0]:.4f}, then {losses[-1]:.4f}"


def by_minillm(module, config, params, job):
    """() -> loss of one step, as `minillm train --set train.backend=cuda` takes it."""
    backend = "cudasim" if job["emulate"] else "cuda"
    if lacking := missing(backend, ("adamw", "attention", "embedding", "layernorm", "linear", "mlp")):
        raise NotBuilt(f"no kernels of {', '.join(lacking)}")
    model = to_device(GPT(config, ops=select("auto"), params=params), backend)
    if job["dtype"] == "bfloat16":
        model = model.on(select(in_halves(module, backend)), model.params)
    return stepper(model, job, step_for(model), Always(*np.array(job["batch"])))


def in_halves(module, backend):
    """{op: its kernels whose matmuls are in bfloat16, or the plain ones}."""
    attention = "4_wgmma" if module.capability() == 90 else "3_mma"
    wanted = {op: f"{backend}/{attention if op == 'attention' else 'bf16'}" for op in OPS}
    return {op: name if name in OPS[op].kernels else backend for op, name in wanted.items()}


def by_torch(_, config, params, job):
    """() -> loss of one step of benchmarks/gpt_torch.py's model on the GPU: eager, fused AdamW, bf16 by autocast."""
    import torch

    from . import gpt_torch
    torch.set_float32_matmul_precision("high")                          # float32's matmuls by TF32
    arrays = {name: np.asarray(params[name]) for name in params.shapes}
    p = {name: tensor.detach().cuda().requires_grad_() for name, tensor in gpt_torch.trainable(arrays).items()}
    tokens, targets = torch.tensor(job["batch"]).cuda()
    optimizer = gpt_torch.optimizer_for(p.values(), job)

    def run():
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=job["dtype"] == "bfloat16"):
            loss = gpt_torch.loss_of(p, asdict(config), tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), job["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def other_loss(rows):
    """What is wrong with the last row beside an earlier one of the same size by somebody else: the first loss, which is
    the forward's, and the third, which is the backward's and the optimizer's, too."""
    *earlier, last = rows
    for row in earlier:
        if (row["size"], row["B"], row["T"], row["dtype"]) == (last["size"], last["B"], last["T"], last["dtype"]):
            for place, limit in ((0, TOLERANCE[row["dtype"]]), (2, 10 * TOLERANCE[row["dtype"]])):
                if abs(row["losses"][place] - last["losses"][place]) > limit * row["losses"][place]:
                    return (f"loss {place} is {last['losses'][place]}, but {row['losses'][place]} for {row['name']}")
    return ""
