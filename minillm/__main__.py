"""The command line: one thin function a command. `python -m minillm` and `minillm` are the same."""
import argparse
import json
import os
import sys
from pathlib import Path

EXAMPLES = {
    "quickstart": "minillm quickstart --minutes 2",
    "info": "minillm info",
    "train": "minillm train --data my_texts/ --out runs/mine --set model.n_layer=6 --set train.steps=5000",
    "generate": 'minillm generate runs/mine -p "Once upon a time" -n 200 --temperature 0.8 --top-k 50',
    "gradcheck": "minillm gradcheck --op layernorm --backend cpu",
    "tokenizer": "minillm tokenizer train --data my_texts/ --vocab-size 8192 --out my_tokenizer",
}


def quickstart(args):
    from .quickstart import quickstart as run
    results = run(args.corpus, args.out, args.minutes, args.steps, args.seed, args.backend, say=printer(args.json))
    if args.json:
        print(json.dumps(results))


def info(args):
    from .info import gather, page
    print(json.dumps(gather(), indent=1) if args.json else page(gather()))


def train(args):
    from .workflow import train_on_files
    results = train_on_files(args.data, args.out, *settings(args), tokenizer=args.tokenizer, vocab_size=args.vocab_size,
                             resume=args.resume, say=printer(args.json))
    if args.json:
        print(json.dumps(results))


def generate(args):
    from .workflow import generate_text
    for piece in generate_text(args.model, args.prompt, args.max_new_tokens, args.temperature, args.top_k, args.top_p,
                               args.seed, args.backend):
        print(piece, end="", flush=True)
    print()


def gradcheck(args):
    from .workflow import gradcheck_table
    rows = gradcheck_table(args.op, args.backend, args.model, args.method, args.dtype)
    failed = [row for row in rows if not row["passed"]]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        from .workflow import gradcheck_page
        print(gradcheck_page(rows))
    return 1 if failed else 0


def tokenizer_train(args):
    from .workflow import train_tokenizer
    print(train_tokenizer(args.data, args.vocab_size, args.out, args.pattern))


def tokenizer_compare(args):
    from .data.extract import read_documents
    from .tokenizer import Tokenizer, compare
    rows = compare.compare({name: Tokenizer.from_pretrained(name) for name in (args.a, args.b)},
                           read_documents(args.text) if args.text else compare.example_texts(), args.n_layer, args.n_embd)
    print(json.dumps(rows, indent=1) if args.json else compare.page(rows))
    if args.plot and not compare.plot(rows, args.plot):
        raise ImportError("--plot needs matplotlib: pip install 'minillm[plot]'")


def tokenizer_inspect(args):
    from .tokenizer import Tokenizer, show
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if args.colour is None else args.colour
    print(show.inspect(Tokenizer.from_pretrained(args.tokenizer), text_of(args), colour=colour, ids=args.ids))


def tokenizer_encode(args):
    from .tokenizer import Tokenizer
    print(*Tokenizer.from_pretrained(args.tokenizer).encode(text_of(args), "all" if args.special else ()))


def tokenizer_decode(args):
    from .tokenizer import Tokenizer
    ids = args.ids or sys.stdin.read().split()
    if wrong := [id for id in ids if not id.isdecimal()]:
        raise ValueError(f"ids must be numbers: got {wrong[0]!r}")
    sys.stdout.write(Tokenizer.from_pretrained(args.tokenizer).decode(map(int, ids)))


def text_of(args):
    """A text given as an argument, as a file, or on stdin."""
    if args.file:
        return Path(args.file).read_text(encoding="utf-8")
    return args.text if args.text is not None else sys.stdin.read()


def settings(args):
    """The model and train tables: defaults for one's own text, then the TOML file, then --set."""
    from .config import GPTConfig, TrainConfig, load_toml, parse_setting
    from .workflow import SMALL_MODEL
    model, trained = load_toml(args.config) if args.config else ({}, {})
    model = SMALL_MODEL | model if not args.config else model
    for setting in args.set:
        table, key, value = parse_setting(setting)
        (model if table == "model" else trained)[key] = value
    return GPTConfig(**model), TrainConfig(**trained)


def printer(as_json):
    """Where the running commentary goes: to stderr when stdout is for JSON."""
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def parser():
    top = argparse.ArgumentParser(prog="minillm", description="A language model from scratch, every derivative by hand.")
    top.add_argument("--version", action="version", version=version())
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = command(commands, "quickstart", quickstart, "train a GPT on the bundled corpus, in minutes")
    p.add_argument("--corpus", choices=["docs", "stories"], default="docs",
                   help="docs: Python's own documentation; stories: a grammar of known entropy")
    p.add_argument("--out", default="runs/quickstart", help="run directory (default: %(default)s)")
    p.add_argument("--minutes", type=float, default=3.5, help="time for pretraining (default: %(default)s)")
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

    p = command(commands, "generate", generate, "continue a prompt")
    p.add_argument("model", help="run directory, or a GPT-2 directory with tokenizer.json")
    p.add_argument("-p", "--prompt", default="", help="text to continue (default: a fresh document)")
    p.add_argument("-n", "--max-new-tokens", type=int, default=200)
    p.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: %(default)s)")
    p.add_argument("--top-k", type=int, help="keep the k likeliest tokens")
    p.add_argument("--top-p", type=float, help="keep the likeliest tokens up to this probability")
    add_common(p)

    p = command(commands, "gradcheck", gradcheck, "check every backward against finite differences")
    p.add_argument("--op", action="append", help="only this op; repeatable (default: all of the op table)")
    p.add_argument("--backend", help="numpy, cpu, cpu/VARIANT, ... (default: everything that is built)")
    p.add_argument("--model", action="store_true", help="check a whole small GPT, every parameter tensor")
    p.add_argument("--method", choices=["central", "complex"], help="default: central; reference ops also complex")
    p.add_argument("--dtype", choices=["float64"], default="float64", help="finite differences need float64")
    p.add_argument("--json", action="store_true", help="machine-readable output")

    p = command(commands, "tokenizer", None, "train, compare and look at byte-level BPE tokenizers")
    actions = p.add_subparsers(dest="action", required=True, metavar="ACTION")
    p = actions.add_parser("train", help="learn a vocabulary from text", epilog=f"example: {EXAMPLES['tokenizer']}")
    p.set_defaults(function=tokenizer_train)
    p.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders and files: .txt .md .py .jsonl")
    p.add_argument("--vocab-size", type=int, default=8192)
    p.add_argument("--pattern", default="gpt2", help="how text is cut into words: gpt2, cl100k or o200k")
    p.add_argument("--out", required=True, help="directory for tokenizer.json")
    add_tokenizer_tools(actions)
    return top


def add_tokenizer_tools(actions):
    p = actions.add_parser("compare", help="two tokenizers on one text: bytes per token, use of the vocabulary, cost",
                           epilog="example: minillm tokenizer compare small/ large/ --text my_texts/ --plot bars.png")
    p.set_defaults(function=tokenizer_compare)
    p.add_argument("a", help="directory with tokenizer.json, or vocab.json and merges.txt")
    p.add_argument("b", help="another")
    p.add_argument("--text", nargs="+", metavar="PATH", help="folders and files (default: English and Python at hand)")
    p.add_argument("--n-layer", type=int, default=12, help="of the model to compute costs for (default: %(default)s)")
    p.add_argument("--n-embd", type=int, default=768, help="its width (default: %(default)s)")
    p.add_argument("--plot", metavar="FILE.png", help="draw bytes per token (needs matplotlib)")
    p.add_argument("--json", action="store_true", help="machine-readable output")
    for name, function, summary in (("inspect", tokenizer_inspect, "show how a text splits into tokens"),
                                    ("encode", tokenizer_encode, "the ids of a text")):
        p = actions.add_parser(name, help=summary, epilog=f'example: minillm tokenizer {name} my_tokenizer "Hello there"')
        p.set_defaults(function=function)
        p.add_argument("tokenizer", help="directory with tokenizer.json, or vocab.json and merges.txt")
        p.add_argument("text", nargs="?", help="the text (default: stdin)")
        p.add_argument("--file", help="a UTF-8 file instead")
        if name == "inspect":
            p.add_argument("--ids", action="store_true", help="show each token's id")
            p.add_argument("--colour", action=argparse.BooleanOptionalAction, help="default: on a terminal")
        else:
            p.add_argument("--special", action="store_true", help="special tokens in the text become their ids")
    p = actions.add_parser("decode", help="the text of ids", epilog="example: minillm tokenizer decode my_tokenizer 464 318")
    p.set_defaults(function=tokenizer_decode)
    p.add_argument("tokenizer", help="directory with tokenizer.json, or vocab.json and merges.txt")
    p.add_argument("ids", nargs="*", help="the ids (default: stdin)")


def command(commands, name, function, summary):
    p = commands.add_parser(name, help=summary, description=summary, epilog=f"example: {EXAMPLES[name]}")
    p.set_defaults(function=function)
    return p


def add_common(p, json=False):
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")
    if json:
        p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")


def version():
    from .version import __version__
    return f"minillm {__version__}"


def main(argv=None):
    """Run one command; returns its exit code. Errors that a user can mend are one line, not a traceback."""
    args = parser().parse_args(argv)
    try:
        return args.function(args) or 0
    except KeyboardInterrupt:
        print("\nstopped; what was finished is saved", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"minillm {args.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
