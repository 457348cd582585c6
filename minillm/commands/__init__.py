"""The command line: one file a command, each with `add(commands)`; here are the options and checks that they share."""
import json
import sys
from argparse import (
    Action,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
    _SubParsersAction,
)
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import TypeAlias

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


class Help(RawDescriptionHelpFormatter):
    """The example as it is; behind what an option does its default, unless its help speaks of that itself."""

    def _get_help_string(self, action: Action) -> str | None:
        plain = action.nargs == 0 or action.default in (None, []) or "default" in (action.help or "")
        return action.help if plain else f"{action.help} (default: %(default)s)"


def printer(as_json: bool) -> Callable[[str], None]:
    """Where the running commentary goes: to stderr when stdout is for JSON."""
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def print_json(args: Namespace, results: object) -> None:
    """The results on one line, if --json asks for them."""
    if args.json:
        print(json.dumps(results))


def command(commands: Commands, name: str, function: Callable[[Namespace], int | None] | None, summary: str,
            example: str) -> ArgumentParser:
    """Add a command (or an action of one); `example` ends its --help as it is, to be pasted. A function of None has
    actions below it."""
    p = commands.add_parser(name, help=summary, description=fill(summary, 79), epilog=f"example: {example}",
                            formatter_class=Help)
    p.set_defaults(function=function)
    return p


def add_common(p: ArgumentParser, json: bool = False) -> None:
    """--seed, --backend and perhaps --json."""
    p.add_argument("--seed", type=int, default=0)
    add_backend(p)
    if json:
        add_json(p)


def add_backend(p: ArgumentParser) -> None:
    p.add_argument("--backend", default="auto", help="auto, numpy or cpu (default: auto)")


def add_json(p: ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print the result as JSON; the commentary goes to stderr")


def directory(path: str) -> str:
    """The argument of a command that reads a directory's files, or writes beside them. Raises what argparse prints."""
    if path.endswith(".gguf") and Path(path).is_file():
        raise ArgumentTypeError(f"{path} is a GGUF file: `minillm export {path} -o DIR` makes a directory of it, which "
                                "this command reads")
    return path


def check_at_least(args: Namespace, **lowest: float) -> None:
    """Raise ValueError naming an option that is below its lowest value; one that is not given (None) passes."""
    for name, least in lowest.items():
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}: got {value}")


def add_resume(p: ArgumentParser) -> None:
    """--out, --resume and --override of the commands that train."""
    p.add_argument("--out", required=True, help="run directory; a run that is there is resumed")
    p.add_argument("--resume", choices=["auto", "never"], default="auto", help="never: begin again (default: auto)")
    p.add_argument("--override", action="store_const", dest="resume", const="override",
                   help="resume although settings (learning rate, batch size, ...) are not those of the run")
