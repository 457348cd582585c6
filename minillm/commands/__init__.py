"""The command line's larger rooms, one file each with `add(commands)`; here is what all of them use."""
import sys
from argparse import HelpFormatter, RawDescriptionHelpFormatter


def printer(as_json):
    """Where the running commentary goes: to stderr when stdout is for JSON."""
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def command(commands, name, function, summary, example):
    """Add a command (or an action of one); `example` ends its --help, with the lines that it has. A function of None has
    actions below it."""
    form = RawDescriptionHelpFormatter if "\n" in example else HelpFormatter
    p = commands.add_parser(name, help=summary, description=summary, epilog=f"example: {example}", formatter_class=form)
    p.set_defaults(function=function)
    return p


def add_common(p, json=False):
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")
    if json:
        p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")
