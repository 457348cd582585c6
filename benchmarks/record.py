"""What a run of `minillm train --hours` is worth: nanoGPT's model in PyTorch on the same tokens for the same time, and
compressors that have read the training text before.

    python -m benchmarks.record runs/docs --hours 2 --json record.json

RUN/data holds the shards, or --data names them. The model is GPT-2's (gpt_torch.py, as nanoGPT writes it), of about as
many parameters as the run's; bfloat16 by autocast, fused AdamW, a cosine of the time that has gone by, dropout where
--dropout says so. Bits per byte of the whole validation split, by the same blocks that the run is validated on.
"""
import argparse
import json
import lzma
import math
import os
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np

# layers, width, heads
SIZES = ((4, 96, 3), (4, 128, 4), (6, 192, 6), (6, 256, 8), (6, 384, 6), (8, 512, 8), (12, 768, 12))
WARMUP, LEAST_LR, EVALUATE_AT = 0.01, 0.1, 5        # share of the time; of the rate; validations on the way


def compressors(shards, tokenizer):
    """{name: bits per byte} of the validation text: alone, and by what it adds to the training text."""
    from minillm.data.shards.format import split_documents
    train, val = (b"".join(split_documents(split, tokenizer)) for split in (shards.train, shards.val))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 29}]

    def xz(data):
        return len(lzma.compress(data, lzma.FORMAT_XZ, filters=filters))
    found = {"xz": xz(val), "xz after the training split": xz(train + val) - xz(train)}
    if find_spec("zstandard"):
        import zstandard
        given = zstandard.ZstdCompressionDict(train, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        window = zstandard.ZstdCompressionParameters.from_level(22, window_log=27, enable_ldm=True)
        found["zstd -22"] = len(zstandard.ZstdCompressor(level=22).compress(val))
        found["zstd -22, the training split as dictionary"] = len(
            zstandard.ZstdCompressor(dict_data=given, compression_params=window).compress(val))
    return {name: 8 * size / len(val) for name, size in found.items()}


def shape_for(width, parameters, V, T):
    """The shape of SIZES with this width; without one, that whose number of parameters is nearest to this."""
    from minillm.config import GPTConfig
    from minillm.train.memory import count_parameters
    shapes = {width: GPTConfig(layers, heads, width, T, V) for layers, width, heads in SIZES}
    return shapes[width] if width else min(shapes.values(),
                                           key=lambda c: abs(math.log(count_parameters(c) / parameters)))


def rate(share, lr):
    """Of the time that is gone: a short warm-up, then a cosine."""
    if share < WARMUP:
        return lr * share / WARMUP
    return lr * (LEAST_LR + (1 - LEAST_LR) * (1 + math.cos(math.pi * min(1, share))) / 2)


def dropped_out(p, config, tokens, targets, dropout):
    """gpt_torch.loss_of, with dropout of the residual stream's additions, as nanoGPT has it."""
    import torch.nn.functional as F

    from . import gpt_torch
    if not dropout:
        return gpt_torch.loss_of(p, config, tokens, targets)
    plain, ends = F.linear, {id(p[name]) for name in p if name.endswith("c_proj.weight")}

    def linear(x, weight, bias=None):
        out = plain(x, weight, bias)
        return F.dropout(out, dropout) if id(weight) in ends else out
    F.linear = linear
    try:
        return gpt_torch.loss_of(p, config, tokens, targets)
    finally:
        F.linear = plain


def torch_side(shards, config, options, say):
    """Train for options.hours; returns the losses on the way and what it cost."""
    import torch

    from minillm.data.shards.prepare import TrainingData
    from minillm.models.gpt2 import initialise
    from minillm.train.memory import count_parameters

    from .gpt_torch import loss_of, optimizer_for, trainable
    torch.set_num_threads(options.threads)
    data = TrainingData(shards, config.block_size, options.batch, options.seed)
    p = trainable(initialise(config, options.seed, np.float32))
    optimizer = optimizer_for(p.values(), {"lr": options.lr, "weight_decay": options.weight_decay})
    shape, seconds, clock = asdict(config), 3600 * options.hours, time.process_time if options.cpu else time.monotonic
    per = options.threads if options.cpu else 1                 # CPU time counts each thread's
    started, step, curve = clock(), 0, []

    def bits():
        nats = count = 0
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for batch in data.validation():
                valid = int((batch.targets != -1).sum())
                nats += loss_of(p, shape, *map(torch.from_numpy, batch[:2])).item() * valid
                count += valid
        return nats / math.log(2) / shards.val.bytes

    while (share := (clock() - started) / per / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(share, options.lr)
        batch = data.batch(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = dropped_out(p, shape, *map(torch.from_numpy, batch[:2]), options.dropout)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if share * EVALUATE_AT >= len(curve) + 1:
            begun = clock()
            curve.append((step, bits()))
            started += clock() - begun                          # validating is not training
            say(f"{share:.0%} of the time, step {step:,}: {curve[-1][1]:.4f} bits per byte")
    curve.append((step, bits()))
    say(f"the end, step {step:,}: {curve[-1][1]:.4f} bits per byte")
    return {"steps": step, "tokens": step * options.batch * config.block_size, "curve": curve,
            "parameters": count_parameters(config), "val_bpb": min(loss for _, loss in curve)}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", help="a run directory")
    add("--data", metavar="DIR", help="its shards (default: RUN/data)")
    add("--hours", type=float, default=2.0)
    add("--cpu", action="store_true", help="of the process's CPU time over its threads, for a machine with other work")
    add("--threads", type=int, default=os.cpu_count())
    add("--batch", type=int, default=12, help="sequences (default: 12, nanoGPT's for a CPU)")
    add("--lr", type=float, default=1e-3)
    add("--weight-decay", type=float, default=0.1)
    add("--dropout", type=float, default=0.0)
    add("--width", type=int, choices=[width for _, width, _ in SIZES],
        help="of SIZES; default: about as many parameters as the run's model")
    add("--seed", type=int, default=0)
    add("--json", metavar="FILE")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    from minillm.data.shards.format import open_shards
    from minillm.models.load import load_model
    from minillm.tokenizer import Tokenizer

    def say(text):
        print(text, file=sys.stderr, flush=True)
    shards, tokenizer = open_shards(options.data or Path(options.run) / "data"), Tokenizer.from_pretrained(options.run)
    model = load_model(options.run)
    found = {"compressors": compressors(shards, tokenizer)}
    for name, value in found["compressors"].items():
        say(f"{name:<50}{value:7.4f}")
    if find_spec("torch"):
        config = shape_for(options.width, model.params.flat.size, tokenizer.vocab_size, model.config.block_size)
        found["nanoGPT's model in PyTorch"] = torch_side(shards, config, options, say) | vars(options)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
