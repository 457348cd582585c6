"""The keeper of a child process that runs a kernel: starts it with limits, tells it to go, times it, says how it
died."""
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .child import PAGE, SET_DUMPABLE, SUBREAPER
from .memory import Region, Shared

MEMORY = 8 * 2 ** 30            # bytes of address space of the child; its share of the arrays is part of it
CALL_SECONDS = 20.0


STARTED: set[int] = set()       # all children that this module has started


class Died(Exception):
    """The kernel did not come back: the message says why."""


def children_of(pid: int | str) -> set[int]:
    return {int(child) for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()}


class Child:
    """One process with one kernel. `call` may raise Died; then the process is gone and another must be started."""

    def __init__(self, shared: Shared, job: dict[str, Any], threads: int = 2) -> None:
        self.shared, self.seconds = shared, job.get("call_seconds", CALL_SECONDS)
        prctl = ctypes.CDLL(None).prctl
        prctl(SET_DUMPABLE, 0, 0, 0, 0)                     # nobody reads the answers from our memory,
        prctl(SUBREAPER, 1, 0, 0, 0)                        # and what outlives its parent becomes our child
        to_child, self.outbox = os.pipe()
        self.inbox, from_child = os.pipe()
        self.errors = tempfile.TemporaryFile()
        note = {"pages": 1, "offset": 0, "written": True, "inside": 0}
        more: dict[str, str] = job.get("environment", {})
        job = {"memory": MEMORY, "seconds": 600, "files": shared.passed, "note": note} | job
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",
                       "OPENBLAS_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0", "PYTHONDONTWRITEBYTECODE": "1",
                       **more}
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("child.py")), str(to_child), str(from_child)],
            pass_fds=(to_child, from_child, *shared.passed), stdin=subprocess.DEVNULL, stdout=self.errors,
            stderr=self.errors,
            env=environment, start_new_session=True)
        os.close(to_child)
        os.close(from_child)
        STARTED.add(self.process.pid)
        self.others = children_of("self")
        self.cores = set(sorted(os.sched_getaffinity(0))[:threads])
        os.sched_setaffinity(self.process.pid, self.cores)
        self.priority = os.getpriority(os.PRIO_PROCESS, 0)
        self.send(job)
        self.answer(60)

    def send(self, message: dict[str, Any]) -> None:
        left = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self.outbox, left):]
        except BrokenPipeError:
            raise Died(self.why()) from None

    def tell(self, byte: bytes) -> None:
        try:
            os.write(self.outbox, byte)
        except BrokenPipeError:
            raise Died(self.why()) from None

    def byte(self, seconds: float) -> bytes:
        """The next byte of the child, or Died after so many seconds."""
        ready, _, _ = select.select([self.inbox], [], [], seconds)
        if not ready:
            self.stop()
            raise Died(f"it did not come back within {seconds:g} s")
        got = os.read(self.inbox, 1)
        if not got:
            raise Died(self.why())
        return got

    def answer(self, seconds: float) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            line += self.byte(seconds)
        try:
            return json.loads(line)
        except ValueError:
            self.stop()
            raise Died("somebody else than the harness answers for it") from None

    def prepare(self, request: dict[str, Any]) -> list:
        """Tell it the arrays of the next calls: their addresses there."""
        self.send(request)
        answer = self.answer(60)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["addresses"]

    def nothing(self) -> float:
        """The seconds of a call of nothing: the way there and back."""
        self.stopped()
        start = time.perf_counter()
        self.tell(b"n")
        self.continued()
        self.byte(10)
        return time.perf_counter() - start

    def state(self) -> str:
        """What is wrong with the floating-point state that the kernel left; "" if nothing."""
        self.tell(b"s")
        return self.answer(10)["error"] if self.byte(10) == b"e" else ""

    def go(self) -> float:
        """One call, of a child that may be stopped: its seconds by this process's clock, the way there and back
        included."""
        start = time.perf_counter()
        self.tell(b"g")
        self.continued()
        got = self.byte(self.seconds)
        seconds = time.perf_counter() - start
        if got == b"e":
            raise ValueError(self.answer(10)["error"])
        if got != b"d" or select.select([self.inbox], [], [], 0)[0]:
            self.stop()
            raise Died("somebody else than the harness says that it is done")
        return seconds

    def end(self) -> None:
        """The case is over: its memory is given back."""
        self.tell(b".")

    def stopped(self) -> None:
        """Stop all its threads now, so that nothing is computed after "done"."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def continued(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def taken(self) -> str:
        """What of the machine any of its threads took that it was not given; "" if nothing."""
        threads = [int(task.name) for task in Path(f"/proc/{self.process.pid}/task").iterdir()]
        if any(os.sched_getaffinity(thread) - self.cores for thread in threads):
            return "it changed which cores it may use"
        first = min(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads) < self.priority
        return "it changed its priority" * (first or any(map(os.sched_getscheduler, threads)))

    def left_behind(self) -> list[int]:
        """Processes that it has started, also those that have left it."""
        return [*children_of(self.process.pid), *self.strays()]

    def strays(self) -> set[int]:
        """Children of this process that it has not started."""
        return children_of("self") - self.others - STARTED

    def busy(self) -> bool:
        """Is any of its threads running, or waiting for a core?"""
        return any((task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
                   for task in Path(f"/proc/{self.process.pid}/task").iterdir())

    def cpu_seconds(self) -> float:
        """CPU time of all its threads."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in
                   Path(f"/proc/{self.process.pid}/task").iterdir()) / 1e9

    def why(self) -> str:
        """How it ended, in words."""
        code = self.process.wait(10)
        number, address, wrote = self.shared.note()
        if code < 0 or number:
            name = signal.Signals(number or -code).name
            return f"it died of {name}" + (f" {'writing' if wrote else 'reading'} at {address:#x}" if number else "")
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"it called exit({code})" if not said else f"it ended with {code}: {said[-1]}"

    def stop(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for pid in self.strays():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def close(self) -> None:
        self.stop()
        for file in (self.outbox, self.inbox):
            os.close(file)
        self.errors.close()


def where(address: int, regions: Sequence[Region], addresses: Sequence[int]) -> str:
    """An address as an index: "x[40], 1 past its end: element 8 of row 4, whose last is 7", or "" near no array."""
    for region, start in zip(regions, addresses):
        first = start - region.inside
        if first - PAGE <= address < first + (region.pages + 1) * PAGE:
            size = np.dtype(region.dtype).itemsize
            index, length = (address - start) // size, region.nbytes // size
            side = (f"{index - length + 1} past its end" if index >= length else
                    f"{-index} before its beginning" if index < 0 else "inside it: it is an input")
            return f"{region.name}[{index}], {side} (it has {'x'.join(map(str, region.shape)) or 1} numbers)" + (
                f": element {region.shape[-1] + index - length} of row {length // region.shape[-1] - 1}, whose "
                f"last is {region.shape[-1] - 1}" if index >= length and len(region.shape) > 1 else "")
    return ""
