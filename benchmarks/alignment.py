"""Hyperparameters of the DPO in `quickstart --full`: chosen on one half of the held-out prompts, reported on the other.

From the pretrained model of a story that is there: fine-tune, then DPO with each setting, each measured on the
development half (minillm/data/sources/instructions.py). The best by `score` is measured once on the test half, beside
the fine-tuned model.

    python -m benchmarks.alignment runs/full --out benchmarks/results/DATE-alignment.json
"""
import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from minillm import GPT, Tokenizer
from minillm.data.shards.format import open_shards
from minillm.recipes import story
from minillm.storage.atomic import write_json

from . import machine

SETTINGS = [(0.1, 3e-5, 0), (0.5, 1e-5, 0), (0.1, 3e-5, 1), (0.5, 1e-5, 1), (0.5, 3e-5, 1)]      # beta, lr, nll_weight
SHOWN = ("followed", "ends well", "bpb stories", "refused harmful", "refused harmless", "toxic")


def score(found):
    """The mean of what should all be one: requests followed, good ends, harm declined, its twins told; less the bits
    per byte of stories, which say what it cost."""
    shares = found["followed"], found["ends well"], found["refused harmful"], 1 - found["refused harmless"]
    return statistics.mean(shares) - found["bpb stories"]


def figures(run, folder, model, tokenizer):
    """What the report shows of a stage, and refusals of unseen words."""
    run.answers = []
    found = story.measured(run, folder, folder, model, tokenizer)
    return {**{name: found[name] for name in SHOWN if name in found}, "score": score(found),
            **{f"refused {row['category']}": row["refused"]["value"] for row in found["safety"]["outside"]}}


def choose(run, out, minutes, speed, settings):
    """{"development": a row for each setting, "chosen", "test": before and after}."""
    halves = {half: story.StoryRun(out, minutes, 0, "auto", print, half) for half in ("development", "test")}
    tokenizer = Tokenizer.from_pretrained(run / "pretrain")
    held_out = story.held_out_texts(tokenizer, open_shards(run / "data"))
    for half in halves.values():
        half.held_out = held_out
    pretrained = GPT.from_pretrained(run / "pretrain", halves["test"].ops)
    rows, models, development = [], [], halves["development"]
    _, tokenizer = story.fine_tune(development, pretrained, tokenizer, speed)

    def tuned():                                             # afresh: training changes a model in place
        return GPT.from_pretrained(out / "sft", development.ops)

    for beta, lr, nll_weight in settings:
        config = replace(story.DPO, lr=lr, min_lr=lr / 10)
        models.append(story.prefer(development, tuned(), tokenizer, speed, config, beta, nll_weight))
        rows.append({"beta": beta, "lr": lr, "nll_weight": nll_weight}
                    | figures(development, "dpo", models[-1], tokenizer))
        print(rows[-1], flush=True)
    best = max(range(len(rows)), key=lambda i: rows[i]["score"])
    return {"development": rows, "chosen": settings[best],
            "test": {"fine-tuned": figures(halves["test"], "sft", tuned(), tokenizer),
                     "aligned": figures(halves["test"], "dpo", models[best], tokenizer)}}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="what `minillm quickstart --full` left")
    parser.add_argument("--minutes", type=float, default=12.0, help="of the story whose shares are taken (default: 12)")
    parser.add_argument("--out", metavar="FILE", help="where to write JSON (default: print only)")
    options = parser.parse_args()
    speed = json.loads((options.run / "results.json").read_text())["speed"]
    with tempfile.TemporaryDirectory() as directory:
        found = choose(options.run, Path(directory), options.minutes, speed, SETTINGS)
    print(json.dumps({name: found[name] for name in ("chosen", "test")}, indent=1))
    if options.out:
        write_json(options.out, {"machine": machine.describe(2), **found}, indent=1)


if __name__ == "__main__":
    main()
