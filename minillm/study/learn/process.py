"""A learner's file in a process of its own: with a time limit, bounded memory, and whatever it prints caught.

A clean helper process (multiprocessing's fork server) imports the judge once, and forks for each file, so that many
judgements cost one start. What a file may do to itself ends there: loops, exits, crashes, prints, threads.
"""
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .exercise import Exercise
from .judge import judge
from .path import exercise_called
from .verdict import Stage

try:
    import resource
except ImportError:                         # a system without limits goes without
    resource = None                         # type: ignore[assignment]

SECONDS = 60.0                              # a whole judgement takes 1 to 3 of them
MEMORY = 2 * 2 ** 30                        # bytes that the learner's code may take on top of the judge's
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PRINTED = 2 ** 20                           # bytes
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def judged(exercise: Exercise, path: Path, seconds: float = SECONDS) -> Iterator[Stage]:
    """The stages of a file as they come, the last of which failed, or all passed; whatever the file does."""
    context: Any = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([__name__])
    inbox, outbox = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(outbox, exercise.name, str(path.resolve())), daemon=True)
    with clean_start():
        process.start()
    outbox.close()
    try:
        yield from listen(inbox, process, seconds)
    finally:
        end(process)


@contextmanager
def clean_start() -> Iterator[None]:
    """What starts now computes on one thread, where times are steady, and does not run the caller's script again."""
    before, main = {name: os.environ.get(name) for name in THREADS}, sys.modules["__main__"]
    os.environ.update(dict.fromkeys(THREADS, "1"))
    sys.modules["__main__"] = ModuleType("__main__")            # multiprocessing would import it in the child
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def listen(inbox: Connection, process: Any, seconds: float) -> Iterator[Stage]:
    """The stages that come through the pipe; one more that fails if the process dies or does not come back."""
    last, deadline = "at the start", time.monotonic() + seconds
    while inbox.poll(max(0.0, deadline - time.monotonic())):
        try:
            message = json.loads(inbox.recv_bytes())
        except EOFError:
            process.join(5)
            yield Stage("runs", False, f"{last} the process ended: {how(process.exitcode)}")
            return
        if "end" in message:
            return
        last = f"after the stage {message['name']!r}"
        yield Stage(**message)
    yield Stage("runs", False, f"{last} it did not come back within {seconds:g} s: a loop without end?")


def how(code: int | None) -> str:
    """What an exit code says."""
    if code and code < 0:
        return f"killed by signal {-code} ({signal.strsignal(-code)})"
    return f"os._exit, perhaps (exit code {code})"


def end(process: Any) -> None:
    """The process and all that it started."""
    if process.pid and process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (AttributeError, OSError):               # it has no group yet, or the system has none
            process.kill()
    process.join()


def work(outbox: Connection, name: str, path: str) -> None:
    """In the child: judge, and send each stage as it is there."""
    if hasattr(os, "setsid"):
        os.setsid()
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")                             # nan and inf are judged, not warned of
    printed, exercise = quiet(), exercise_called(name)
    if not exercise.c:                                  # the kernel bench gives each kernel limits of its own
        limit()
    for stage in judge(exercise, Path(path)):
        text = said(printed)
        if text and not stage.passed:
            stage.message += f" [it printed: {text}]"
        outbox.send_bytes(json.dumps(asdict(stage)).encode())
    outbox.send_bytes(b'{"end": 1}')


def quiet() -> int:
    """No input; what is printed goes into a file without a name."""
    file = tempfile.TemporaryFile()
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, nothing), (1, file.fileno()), (2, nothing)):
        os.dup2(source, target)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    return os.dup(file.fileno())


def said(printed: int) -> str:
    """The beginning of what was printed, in a line."""
    try:
        sys.stdout.flush()
    except OSError:                                     # beyond PRINTED
        pass
    text = os.pread(printed, 200, 0).decode(errors="replace").strip()
    return " / ".join(text.splitlines())[:100]


def limit() -> None:
    if resource is None:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    except (OSError, ValueError):                       # no /proc, or a lower limit stands already
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED, PRINTED))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
