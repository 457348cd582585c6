"""The command line: one thin function a command. `python -m minillm` and `minillm` are the same.

The larger rooms have a file each in `commands/`.
"""
import argparse
import json
import sys

from .commands import (add_common, chat, data, distill, evaluate, generate, posttrain, printer, quantize, serve,
                       tokenizer)
from .commands import command as new_command
from .kernels.select import check_kernels

EXAMPLES = {
    "quickstart": "minillm quickstart --minutes 2",
    "info": "minillm info",
    "train": "minillm train --data my_texts/ --out runs/mine --set model.n_layer=6 --set train.steps=5000",
    "gradcheck": "minillm gradcheck --op layernorm --backend cpu",
}


def quickstart(args):
    if args.full:
        from .recipes.story import full
        results = full(args.out or "runs/full", args.minutes or 12.0, args.seed, args.backend, say=printer(args.json))
    else:
        from .recipes.quickstart import quickstart as run
        results = run(args.corpus, args.out or "runs/quickstart", args.minutes or 3.5, args.steps, args.seed, args.backend,
                      say=printer(args.json))
    if args.json:
        print(json.dumps(results))


def info(args):
    from .kernels.info import gather, page
    print(json.dumps(gather(), indent=1) if args.json else page(gather()))


def train(args):
    from .recipes.train_on_files import train_on_files
    results = train_on_files(args.data, args.out, *settings(args), tokenizer=args.tokenizer, vocab_size=args.vocab_size,
                             resume=args.resume, say=printer(args.json))
    if args.json:
        print(json.dumps(results))


def gradcheck(args):
    from .recipes.train_on_files import gradcheck_table
    rows = gradcheck_table(args.op, args.backend, args.model, args.method, args.dtype)
    failed = [row for row in rows if not row["passed"]]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        from .recipes.train_on_files import gradcheck_page
        print(gradcheck_page(rows))
    return 1 if failed else 0


def settings(args):
    """The model and train tables: defaults for one's own text, then the TOML file, then --set."""
    from .config import GPTConfig, TrainConfig, check_heeded, load_toml, parse_setting
    from .recipes.train_on_files import SMALL_MODEL
    model, trained = load_toml(args.config) if args.config else ({}, {})
    for key in model:
        check_heeded("train", "model", key, f"{args.config}: ")
    model = SMALL_MODEL | model if not args.config else model
    for setting in args.set:
        table, key, value = parse_setting(setting)
        check_heeded("train", table, key, f"--set {setting}: ")
        (model if table == "model" else trained)[key] = value
    return GPTConfig(**model), TrainConfig(**trained)


def command(commands, name, function, summary):
    return new_command(commands, name, function, summary, EXAMPLES[name])


def parser():
    top = argparse.ArgumentParser(prog="minillm", description="A language model from scratch, every derivative by hand.")
    top.add_argument("--version", action="version", version=version())
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = command(commands, "quickstart", quickstart, "train a GPT on the bundled corpus, in minutes")
    p.add_argument("--corpus", choices=["docs", "stories"], default="docs",
                   help="docs: Python's own documentation; stories: a grammar of known entropy")
    p.add_argument("--full", action="store_true", help="the whole way: clean, deduplicate, pretrain, fine-tune, align, "
                   "evaluate, distil, speculate, with one report (up to 20 minutes)")
    p.add_argument("--out", help="run directory (default: runs/quickstart, or runs/full)")
    p.add_argument("--minutes", type=float, help="time for training (default: 3.5, or 12 with --full)")
    p.add_argument("--steps", type=int, help="a fixed number of steps instead of a time")
    add_common(p, json=True)

    p = command(commands, "info", info, "versions, CPU features, what is built, what is not and why")
    p.add_argument("--json", action="store_true", help="machine-readable output")

    p = command(commands, "train", train, "train a GPT on your own text")
    p.add_argument("config", nargs="?", help="TOML file with tables [model] and [train]")
    p.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders and files: .txt .md .py .jsonl")
    p.add_argument("--out", required=True, help="run directory; a run that is there is resumed")
    p.add_argument("--resume", choices=["auto", "never"], default="auto", help="never: begin again (default: auto)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as train.lr=3e-4; repeatable")
    p.add_argument("--tokenizer", help="directory with tokenizer.json (default: train one on the data)")
    p.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer to train (default: %(default)s)")
    p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")

    generate.add(commands)

    p = command(commands, "gradcheck", gradcheck, "check every backward against finite differences")
    p.add_argument("--op", action="append", help="only this op; repeatable (default: all of the op table)")
    p.add_argument("--backend", help="numpy, cpu, cpu/VARIANT, ... (default: everything that is built)")
    p.add_argument("--model", action="store_true", help="check a whole small GPT, every parameter tensor")
    p.add_argument("--method", choices=["central", "complex"], help="default: central; reference ops also complex")
    p.add_argument("--dtype", choices=["float64"], default="float64", help="finite differences need float64")
    p.add_argument("--json", action="store_true", help="machine-readable output")

    tokenizer.add(commands)
    data.add(commands)
    posttrain.add(commands)
    distill.add(commands)
    evaluate.add(commands)
    quantize.add(commands)
    serve.add(commands)
    chat.add(commands)
    return top


def version():
    from .version import __version__
    return f"minillm {__version__}"


def main(argv=None):
    """Run one command; returns its exit code. Errors that a user can mend are one line, not a traceback."""
    args = parser().parse_args(argv)
    try:
        check_kernels()
        return args.function(args) or 0
    except KeyboardInterrupt:
        print("\nstopped; what was finished is saved", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"minillm {args.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
