"""The small training demo: nanoGPT's README configuration for a CPU, minillm against PyTorch eager, from equal weights.

4 layers, 4 heads, 128 wide, block 64, batch 12, 2,000 steps, no dropout, one token a character, on the first 1.1 MB of
the bundled corpus. Both sides draw the same batches and start from the same weights, and each run is a process of its
own; what is compared is the wall time of the 2,000 steps and the validation loss at their end, over three seeds.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec

import numpy as np

from minillm.config import GPTConfig, TrainConfig
from minillm.data.shards.loader import Loader, sequential
from minillm.data.sources.pydocs import pydoc_corpus
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT, initialise
from minillm.train.loop import evaluate, one_step
from minillm.train.optim import AdamW, bf16_weight_copy
from minillm.train.schedule import cosine_schedule

from .measure import report_row
from .workers import environment

CHARACTERS = 1_100_000
TRAIN = TrainConfig(steps=2000, batch_size=12, lr=1e-3, min_lr=1e-4, warmup=100, beta2=0.99, weight_decay=0.1)
CANDIDATES = {"minillm": "auto", "minillm bf16": "cpu/bf16", "torch eager": "torch"}


def rows(options, peaks, progress=None):
    """Run every candidate for every seed in turns; returns rows, wrong, skipped as the other benchmarks do."""
    names = [name for name in CANDIDATES if find_spec("torch") or name != "torch eager"]
    found = {name: [] for name in names}
    for seed in range(options.seeds):
        for place, name in enumerate(names):
            if progress:
                progress(seed * len(names) + place, options.seeds * len(names), name)
            found[name].append(run_alone(name, seed, options.threads, options.steps))
    losses = {name: statistics.mean(r["val_loss"] for r in runs) for name, runs in found.items()}
    wrong = {name: [f"validation loss {loss:.4f}, minillm's is {losses['minillm']:.4f}"]
             for name, loss in losses.items() if abs(loss / losses["minillm"] - 1) > 0.01}
    return [row(name, runs, found["minillm"]) for name, runs in found.items()], wrong, {}


def run_alone(name, seed, threads, steps):
    """One training run in its own process; {"seconds", "val_loss", "steps"}."""
    command = [sys.executable, "-m", "benchmarks.demo", "--candidate", name, "--seed", str(seed),
               "--threads", str(threads), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment({}, threads))
    if done.returncode:
        raise RuntimeError(f"demo: {name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def row(name, runs, ours):
    """One line of the report."""
    seconds, losses = [r["seconds"] for r in runs], [r["val_loss"] for r in runs]
    return report_row("demo", f"4x128 B=12 T=64 steps={runs[0]['steps']}", "train", name,
                      "bfloat16" if "bf16" in name else "float32", seconds, val_losses=losses,
                      val_loss=statistics.mean(losses),
                      x_minillm=statistics.median(r["seconds"] for r in ours) / statistics.median(seconds))


def characters():
    """(train ids, validation ids, V): ASCII text of the corpus, one id a character."""
    text = "\n\n".join(text for _, text in pydoc_corpus()).encode("ascii", "ignore")[:CHARACTERS]
    known, ids = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    cut = len(ids) * 9 // 10
    return ids[:cut].astype(np.uint16), ids[cut:].astype(np.uint16), len(known)


def train_one(name, seed, threads, steps):
    """Train one candidate in this process; {"seconds", "val_loss", "steps"}."""
    train_ids, val_ids, V = characters()
    config = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64, vocab_size=V)
    settings = TrainConfig(**{**asdict(TRAIN), "steps": steps, "seed": seed})
    loader = Loader([train_ids], config.block_size, settings.batch_size, seed)
    validation = list(sequential([val_ids], config.block_size, 64))
    side = torch_side if name == "torch eager" else minillm_side
    seconds, loss = side(config, settings, loader, validation, threads, CANDIDATES[name])
    return {"seconds": seconds, "val_loss": loss, "steps": steps}


def minillm_side(config, settings, loader, validation, threads, backend):
    model = GPT(config, settings.seed, ops=select(backend))
    optimizer = AdamW(model.params, settings.lr, (settings.beta1, settings.beta2), settings.eps, settings.weight_decay,
                      model.ops)
    started = time.perf_counter()
    with bf16_weight_copy(model, optimizer):
        for step in range(settings.steps):
            one_step(model, optimizer, loader, settings, {"step": step})
    seconds = time.perf_counter() - started
    nats, count = evaluate(model, validation)
    return seconds, nats / count


def torch_side(config, settings, loader, validation, threads, _):
    import torch

    from .gpt_torch import loss_of, optimizer_for, trainable
    torch.set_num_threads(threads)
    p = trainable(initialise(config, settings.seed, np.float32))
    optimizer = optimizer_for(p.values(), asdict(settings))
    shape = asdict(config)
    started = time.perf_counter()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = cosine_schedule(step, settings.warmup, settings.steps, settings.lr, settings.min_lr)
            group["betas"] = (settings.beta1, settings.beta2)
        loss = loss_of(p, shape, *(torch.from_numpy(a) for a in loader.batch(step)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    nats = count = 0.0
    with torch.no_grad():
        for tokens, targets in validation:
            valid = int((targets != -1).sum())
            nats += loss_of(p, shape, torch.from_numpy(tokens), torch.from_numpy(targets)).item() * valid
            count += valid
    return seconds, nats / count


def main():
    parser = argparse.ArgumentParser(description="One run of the demo, as JSON (of all: `python -m benchmarks demo`).")
    parser.add_argument("--candidate", choices=CANDIDATES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=TRAIN.steps)
    options = parser.parse_args()
    print(json.dumps(train_one(options.candidate, options.seed, options.threads, options.steps)))


if __name__ == "__main__":
    main()
