"""The command line. `python -m minillm` and `minillm` are the same; each command has a file in commands/."""
import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .commands import COMMANDS, FILES, Help, main_command
from .launch import end_all, fall_silent, watched
from .version import __version__

SYSTEM = {                     # what these say by themselves helps nobody
    "MemoryError": "not enough memory, a smaller model or batch needs less: ",
    "RecursionError": "the input is nested too deeply: ",
    "BrokenExecutor": "a worker process died, perhaps of too little memory: ",
}


def parser(first: str | None = None) -> argparse.ArgumentParser:
    """The parser of every command; of a command line whose first word is known, with the options of that command alone,
    so that no other file is imported."""
    from .commands.paths import described
    top = argparse.ArgumentParser(prog="minillm",
                                  description="A language model from scratch, every derivative by hand.",
                                  epilog=described(), formatter_class=Help)
    top.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    file_of = {name: FILES.get(name, name) for name in COMMANDS}
    wanted = {*file_of.values()} if first is None else {file_of.get(first)}
    for name, file in file_of.items():
        if file not in wanted:
            main_command(commands, name)
        elif name not in commands.choices:                                   # a file may add several commands at once
            import_module(f".commands.{file}", __package__).add(commands)
    return top


def errors_of_users() -> tuple[type[Exception], ...]:
    """What a user can mend, or the system's limits."""
    from concurrent.futures import BrokenExecutor
    return ValueError, OSError, FloatingPointError, ImportError, MemoryError, RecursionError, BrokenExecutor


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors that a user can mend are one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):            # any file name and any text can be printed on any terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if argv is None:
        watched()
    fall_silent()
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser(words[0] if words else "").parse_args(words)
    try:
        from .kernels.select import check_kernels
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
    except errors_of_users() as error:
        what = next((SYSTEM[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in SYSTEM), "")
        print(f"minillm {args.command}: {what}{error}", file=sys.stderr, flush=True)
        end_all(f"{args.command}: {what}{error}")
        return 1
    except BaseException as error:
        end_all(f"{type(error).__name__}: {error}", error)
        raise


if __name__ == "__main__":
    sys.exit(main())
