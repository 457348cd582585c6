"""`minillm tokenizer`: train, compare, inspect, encode, decode."""
import argparse
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from . import add_json, command, main_command

EXAMPLE = "minillm tokenizer train --data my_texts/ --vocab-size 8192 --out my_tokenizer"
FILES = ("directory with tokenizer.json, vocab.json and merges.txt, tokenizer.model or ranks (*.tiktoken); or such a "
         "file")


def tokenizer_train(args: Namespace) -> None:
    from ..recipes.train_on_files import train_tokenizer
    print(train_tokenizer(args.data, args.vocab_size, args.out, pattern=args.pattern, ties=args.ties,
                          special_tokens=args.special or ["<|endoftext|>"], stop_early=args.stop_early))


def tokenizer_compare(args: Namespace) -> None:
    from ..data.sources.files import read_documents
    from ..data.sources.pydocs import english_and_python
    from ..tokenizer import Tokenizer, compare
    rows = compare.compare({name: Tokenizer.from_pretrained(name) for name in (args.a, args.b)},
                           read_documents(args.text) if args.text else english_and_python(), args.n_layer, args.n_embd)
    print(json.dumps(rows, indent=1) if args.json else compare.compare_page(rows))
    if args.plot and not compare.plot(rows, args.plot):
        raise ImportError("--plot needs matplotlib: pip install 'minillm[plot]'")


def tokenizer_inspect(args: Namespace) -> None:
    from ..tokenizer import Tokenizer, show
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if args.colour is None else args.colour
    print(show.inspect(Tokenizer.from_pretrained(args.tokenizer), text_of(args), colour=colour, ids=args.ids))


def tokenizer_encode(args: Namespace) -> None:
    from ..tokenizer import Tokenizer
    print(*Tokenizer.from_pretrained(args.tokenizer).encode(text_of(args), "all" if args.special else (), ()))


def tokenizer_decode(args: Namespace) -> None:
    from ..tokenizer import Tokenizer
    ids = args.ids or sys.stdin.read().split()
    if wrong := [id for id in ids if not id.isdecimal()]:
        raise ValueError(f"ids must be numbers: got {wrong[0]!r}")
    sys.stdout.write(Tokenizer.from_pretrained(args.tokenizer).decode(map(int, ids)))


def text_of(args: Namespace) -> str:
    """A text given as an argument, as a file, or on stdin."""
    if args.file:
        return Path(args.file).read_text(encoding="utf-8")
    return args.text if args.text is not None else sys.stdin.read()


def add(commands: Any) -> None:
    p = main_command(commands, "tokenizer", None, EXAMPLE)
    actions = p.add_subparsers(dest="action", required=True, metavar="ACTION")
    p = command(actions, "train", tokenizer_train, "learn a vocabulary from text", EXAMPLE)
    p.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders and files: .txt .md .py .jsonl")
    p.add_argument("--vocab-size", type=int, default=8192, help="tokens, 256 bytes included")
    p.add_argument("--stop-early", action="store_true", help="take fewer tokens if the text does not yield so many")
    p.add_argument("--pattern", default="gpt2", help="how text is cut into words: gpt2, cl100k, o200k, llama3, qwen2, "
                   "smollm, deepseek")
    p.add_argument("--ties", choices=["ids", "values", "bytes"], default="ids",
                   help="of pairs equally frequent, first comes: the smaller ids, as at Hugging Face; the smaller ids "
                        "with bytes by value; the greater bytes, as in textbooks")
    p.add_argument("--special", action="append", metavar="TEXT",
                   help="a special token; repeatable (default: <|endoftext|>)")
    p.add_argument("--out", required=True, help="directory for tokenizer.json")
    add_tokenizer_tools(actions)


def add_tokenizer_tools(actions: Any) -> None:
    p = command(actions, "compare", tokenizer_compare, "two tokenizers on one text: bytes per token, use of the "
                "vocabulary, cost", "minillm tokenizer compare small/ large/ --text my_texts/ --plot bars.png")
    p.add_argument("a", help=FILES)
    p.add_argument("b", help="another")
    p.add_argument("--text", nargs="+", metavar="PATH", help="folders and files (default: English and Python at hand)")
    p.add_argument("--n-layer", type=int, default=12, help="of the model to compute costs for")
    p.add_argument("--n-embd", type=int, default=768, help="its width")
    p.add_argument("--plot", metavar="FILE.png", help="draw bytes per token (needs matplotlib)")
    add_json(p)
    for name, function, summary in (("inspect", tokenizer_inspect, "show how a text splits into tokens"),
                                    ("encode", tokenizer_encode, "the ids of a text")):
        p = command(actions, name, function, summary, f'minillm tokenizer {name} my_tokenizer "Hello there"')
        p.add_argument("tokenizer", help=FILES)
        p.add_argument("text", nargs="?", help="the text (default: stdin)")
        p.add_argument("--file", help="a UTF-8 file instead")
        if name == "inspect":
            p.add_argument("--ids", action="store_true", help="show each token's id")
            p.add_argument("--colour", action=argparse.BooleanOptionalAction, help="default: on a terminal")
        else:
            p.add_argument("--special", action="store_true", help="special tokens in the text become their ids")
    p = command(actions, "decode", tokenizer_decode, "the text of ids", "minillm tokenizer decode my_tokenizer 264 118")
    p.add_argument("tokenizer", help=FILES)
    p.add_argument("ids", nargs="*", help="the ids (default: stdin)")
