"""What a judgement says: stages in order, each with its evidence; the first that fails is the last."""
import errno
import traceback
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Stage:
    """One line of a judgement."""

    name: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name:<20} {self.message}".rstrip()


def told(error: BaseException, path: Path) -> str:
    """An exception of a learner's code in a line: where in the file, which, what."""
    if isinstance(error, SystemExit):
        return "it calls exit(), which ends the program: return instead"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"{place(error, path)}: it prints, or writes to a file, more than a megabyte"
    if isinstance(error, MemoryError):
        return f"it asks for too much memory ({place(error, path)}): {first_line(error)}".removesuffix(": ")
    return f"{place(error, path)}: {type(error).__name__}: {first_line(error)}".removesuffix(": ")


def place(error: BaseException, path: Path) -> str:
    """The innermost function and line of the file that an exception went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if not frames:
        return "while it was judged"
    inner = frames[-1]
    return f"line {inner.lineno}" + (f" in {inner.name}" if inner.name != "<module>" else "") + (
        f" ({inner.line.partition('  #')[0].rstrip()})" if inner.line else "")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
