"""An advisory lock on a directory: one process at a time writes a run, and a killed one leaves nothing that blocks."""
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .atomic import TAKEN, AnyPath, fcntl, remove_leftovers

LOCK = ".minillm.lock"                      # also what tells a directory that minillm writes from a folder of texts
holders: dict[Path, int] = {}               # directory -> thread; POSIX locks do not tell threads apart


@contextmanager
def exclusive(directory: AnyPath) -> Iterator[None]:
    """Hold the lock of a directory, which is made if need be; a thread that holds it may take it again.

    The lock is the operating system's (on the open file .minillm.lock, which stays), so it ends with its process,
    however that ends. Raises BlockingIOError naming the process that holds it; a file system without locks has none.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    path, me = Path(directory).resolve(), threading.get_ident()
    if holders.get(path) == me:
        yield
        return
    if holders.setdefault(path, me) != me:
        raise taken(directory, str(os.getpid()))
    try:
        with open(path / LOCK, "a+", encoding="utf-8") as file:
            lock(file, directory)
            for folder in (path, *filter(Path.is_dir, path.iterdir())):
                remove_leftovers(folder)
            yield
    finally:
        del holders[path]


def lock(file: IO[str], directory: AnyPath) -> None:
    """Lock the open file and write into it who holds it."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            file.seek(0)
            raise taken(directory, file.read()) from None
        return
    file.truncate(0)
    file.write(f"{os.getpid()}{here()}")
    file.flush()


def here() -> str:
    """What follows a process's number, which says nothing on another machine that shares the file system."""
    return f" on {platform.node() or '?'}"


def taken(directory: AnyPath, process: str) -> BlockingIOError:
    return BlockingIOError(f"{directory}: process {process.removesuffix(here()) or '?'} is at work there: wait until "
                           "it ends, or use another directory")


def written_by_us(directory: AnyPath) -> bool:
    """Has minillm ever written there as the only one: is it a run, or a directory of shards?"""
    return Path(directory, LOCK).exists()
