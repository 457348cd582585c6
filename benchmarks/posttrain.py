"""Gains of GRPO on sums with verifiable answers (minillm/posttrain/tasks.py), after fine-tuning on noisy labels.

For each seed: a GPT of 0.1M parameters is fine-tuned on sums of which half have a random answer, so it is right about
half of the time; then it is rewarded for right answers. Reported: mean reward of sampled answers in the first and in
the last tenth of the steps, and of greedy answers to held-out problems, before and after.

    python -m benchmarks.posttrain --out benchmarks/results/DATE-grpo.json
"""
import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from minillm import GPT, GPTConfig, Tokenizer, TrainConfig
from minillm.data.sources.conversations import example_of
from minillm.posttrain.grpo import GRPO_COLUMNS, RewardData, grpo_step, mean_reward, validate_reward
from minillm.posttrain.sft import ChatData
from minillm.posttrain.tasks import TASKS
from minillm.storage.atomic import atomic_write
from minillm.train.log import read_log
from minillm.train.loop import train

from . import machine

SEEDS = (0, 1, 2)
STEPS = 200
MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 16}
TEACH = {"steps": 400, "lr": 2e-3, "min_lr": 2e-4, "warmup": 20, "eval_every": 0, "save_every": 0}
REWARD = {"steps": STEPS, "lr": 5e-4, "min_lr": 5e-5, "warmup": 5, "eval_every": 25, "save_every": 0, "log_every": 1,
          "weight_decay": 0.0}


def one_seed(seed, directory):
    """Fine-tune on noisy labels, then reward; returns the figures of one seed."""
    task, tokenizer = TASKS["addition-careless"], Tokenizer.train(["0123456789+=" * 3], 257)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **MODEL), seed)
    examples = [example_of(record, tokenizer) for record in task.records(seed)]
    train(model, ChatData(examples, tokenizer, MODEL["block_size"], 512, seed), TrainConfig(**TEACH, seed=seed),
          directory / "taught")
    taught, model = (GPT.from_pretrained(directory / "taught") for _ in range(2))
    data, started = RewardData(task, tokenizer, 16, 8, 4, seed), time.perf_counter()
    before = mean_reward(model, data)
    train(model, data, TrainConfig(**REWARD, seed=seed), directory / "rewarded", step=grpo_step(taught),
          validate=validate_reward, columns=GRPO_COLUMNS)
    rewards = [row["reward"] for row in read_log(directory / "rewarded")]
    return {"seed": seed, "first": statistics.mean(rewards[:STEPS // 10]),
            "last": statistics.mean(rewards[-STEPS // 10:]), "held_out_before": before,
            "held_out_after": mean_reward(model, data), "seconds": time.perf_counter() - started}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posttrain", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", metavar="FILE", help="where to write JSON (default: print only)")
    options = parser.parse_args()
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as directory:
            rows.append(one_seed(seed, Path(directory)))
        print("  ".join(f"{key} {value:.3g}" for key, value in rows[-1].items()), flush=True)
    if options.out:
        with atomic_write(options.out) as file:
            json.dump({"machine": machine.describe(2), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
