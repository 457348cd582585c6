"""The command line. `python -m minillm` and `minillm` are the same; each command has a file in commands/."""
import argparse
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from importlib import import_module

from .commands import Help
from .commands.paths import described
from .kernels.select import check_kernels
from .launch import end_all, fall_silent
from .version import __version__

COMMANDS = ("quickstart", "info", "learn", "trace", "book", "plan", "train", "generate", "verify", "doctor",
            "gradcheck", "kernel", "tokenizer", "data", "posttrain", "distill", "evaluate", "quantize", "export",
            "serve", "chat")
SYSTEM = {                     # what these say by themselves helps nobody
    MemoryError: "not enough memory, a smaller model or batch needs less: ",
    RecursionError: "the input is nested too deeply: ",
    BrokenExecutor: "a worker process died, perhaps of too little memory: ",
}
ERRORS = (ValueError, OSError, FloatingPointError, ImportError, *SYSTEM)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="minillm",
                                  description="A language model from scratch, every derivative by hand.",
                                  epilog=described(), formatter_class=Help)
    top.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f".commands.{name}", __package__).add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors that a user can mend are one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):            # any file name and any text can be printed on any terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    fall_silent()
    args = parser().parse_args(argv)
    try:
        check_kernels()
        code = args.function(args) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nstopped; what was finished is saved", file=sys.stderr)
        return 130
    except BrokenPipeError:                    # whom we write for has seen enough, as in `minillm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)          # nor may the interpreter complain when it flushes
        return 141
    except ERRORS as error:
        what = next((words for kind, words in SYSTEM.items() if isinstance(error, kind)), "")
        print(f"minillm {args.command}: {what}{error}", file=sys.stderr, flush=True)
        end_all(f"{args.command}: {what}{error}")
        return 1
    except BaseException as error:
        end_all(f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    sys.exit(main())
