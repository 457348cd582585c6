"""The command line. `python -m minillm` and `minillm` are the same; each command has a file in commands/."""
import argparse
import sys
from collections.abc import Sequence

from .commands import (
    chat,
    data,
    distill,
    evaluate,
    generate,
    gradcheck,
    info,
    posttrain,
    quantize,
    quickstart,
    serve,
    tokenizer,
    train,
)
from .kernels.select import check_kernels
from .version import __version__

COMMANDS = (quickstart, info, train, generate, gradcheck, tokenizer, data, posttrain, distill, evaluate, quantize,
            serve, chat)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="minillm",
                                  description="A language model from scratch, every derivative by hand.")
    top.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in COMMANDS:
        room.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
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
