"""The command line's larger rooms, one file each with `add(commands)`; here is what all of them use."""
import sys
from argparse import RawDescriptionHelpFormatter
from textwrap import fill


def printer(as_json):
    """Where the running commentary goes: to stderr when stdout is for JSON."""
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def command(commands, name, function, summary, example):
    """Add a command (or an action of one); `example` ends its --help as it is, to be pasted. A function of None has
    actions below it."""
    p = commands.add_parser(name, help=summary, description=fill(summary, 79), epilog=f"example: {example}",
                            formatter_class=RawDescriptionHelpFormatter)
    p.set_defaults(function=function)
    return p


def add_common(p, json=False):
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")
    if json:
        p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")
