"""A kernel on its bench: calls are laid out in memory that a child process (process.py) shares, run there, and read.

A crash there, or whatever else the child must not do, is Refused: the name of a check, and why.
"""
from collections.abc import Callable
from typing import Any

import numpy as np

from .memory import Shared
from .process import Child, Died, where
from .subject import Placed, PyKernel
from .workload import Workload, workload_at


class Refused(Exception):
    """A kernel did what it must not: (the check's name, why)."""


class Bench:
    """A kernel and the child that runs it; a child that died is started again."""

    def __init__(self, kernel: Any, threads: int = 2) -> None:
        self.kernel, self.threads, self.shared = kernel, threads, Shared()
        self.child = Child(self.shared, kernel.job(), threads)
        self.placed: list[Placed] = []

    def prepare(self, works: list[Workload], at_end: bool = True, own: Any = None, held: bool = False) -> None:
        """Lay out one call, or several to be made at one go. held: without their values, which `give` brings."""
        self.shared.clear()
        self.shared.held = [] if held else None
        asked, self.placed = [], []
        for i, work in enumerate(works):
            told, placed = self.kernel.lay_out(self.shared, work, at_end, own[i] if isinstance(own, list) else own)
            asked.append(told)
            self.placed.append(placed)
        self.addresses: list = []
        self.addresses = self.guarded(lambda: self.child.prepare(self.kernel.request(asked)))

    def give(self) -> None:
        """Bring the values that were held back, and leave the child stopped: nobody can work before "go"."""
        self.child.stopped()
        self.shared.release()

    def rewrite(self, work: Workload, own: Any = None) -> None:
        """Other values for the same call, at the same addresses (a Python backward's cache is made anew, too)."""
        if isinstance(self.kernel, PyKernel):
            self.end()
            self.prepare([work])
            return
        used = self.shared.used
        self.shared.clear()
        at_end = any(region.inside for region in self.placed[0].regions)    # an array of whole pages is inside at 0
        _, self.placed[0] = self.kernel.lay_out(self.shared, work, at_end, own)
        self.shared.used = used

    def run(self) -> float:
        try:
            seconds = self.guarded(self.child.go)
        except Refused:
            self.reported()                                 # tells more than how it ended
            raise
        self.reported()
        return seconds

    def reported(self) -> None:
        """Raise for an error that the emulator has reported."""
        if self.kernel.device and (error := self.kernel.device.error()):
            raise Refused(*error)

    def guarded(self, call: Callable[[], Any]) -> Any:
        """What the child answers; its end or its complaint is a verdict."""
        try:
            return call()
        except Died as died:
            raise Refused("runs", self.explained(str(died))) from None
        except ValueError as error:
            raise Refused("results", str(error)) from None

    def explained(self, died: str) -> str:
        """A fault's address in terms of the arrays."""
        address = self.shared.note()[1]
        if self.addresses and address:
            place = where(address, self.placed[0].regions, self.addresses[0])
            return f"{died.rpartition(' at ')[0]} {place}" if place else died
        return died

    def end(self) -> None:
        """The case is over; the child gives its memory back."""
        self.guarded(self.child.end)

    def found(self, work: Workload, call: int = 0) -> dict[str, np.ndarray]:
        return self.kernel.found(self.shared, self.placed[call], work)

    def close(self) -> None:
        self.child.close()
        self.shared.close()


def own_memory(bench: Bench, work: Workload, at_end: bool) -> Any:
    """What their own forward leaves in memory of their own, which their backward needs."""
    kernel, forward = bench.kernel, bench.kernel.partner
    if forward is None or not any(slot.kind == "own" for slot in kernel.function.slots):
        return None
    before = workload_at(work.op, "forward", work.args, kernel.dtype, {}, forward.added)
    bench.kernel = forward
    try:
        bench.prepare([before], at_end)
        bench.run()
        bench.end()
        return forward.own(bench.shared, bench.placed[0])
    finally:
        bench.kernel = kernel


def own_for(bench: Bench, work: Workload) -> Any:
    """own_memory without disturbing the call that is laid out: by a child of its own."""
    other = Bench(bench.kernel, bench.threads)
    try:
        return own_memory(other, work, True)
    finally:
        other.close()
