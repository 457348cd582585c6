"""Progress of long work on one line: how much is done, the rate, and the time left."""
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeVar

Item = TypeVar("Item")
Report = Callable[[int, int, str], None]        # progress(done, total, text), as a Progress is called


class Progress:
    """Call it as progress(done, total, text): it redraws a line on a terminal, and prints now and then elsewhere."""

    def __init__(self, label: str, unit: str = "it", out: TextIO | None = None, every: float | None = None):
        """every: seconds between lines (default 0.2 on a terminal, 15 otherwise). Shorter work prints nothing."""
        self.label, self.unit, self.out = label, unit, out or sys.stderr
        self.terminal = self.out.isatty()
        self.every = every if every is not None else (0.2 if self.terminal else 15.0)
        self.started = self.shown = time.monotonic()
        self.first: int | None = None                     # `done` at the first call: a resumed run starts above 0
        self.drawn = False

    def __call__(self, done: int, total: int, text: str = "") -> None:
        if self.first is None:
            self.first = done
        now = time.monotonic()
        if now - self.shown < self.every:
            return
        self.shown, self.drawn = now, True
        line = f"{self.label} {100 * done / max(1, total):3.0f}%  {self.speed(done, total, now)}  {text}"
        self.out.write(f"\r{line:<100.100}" if self.terminal else line + "\n")
        self.out.flush()

    def speed(self, done: int, total: int, now: float) -> str:
        rate = (done - (self.first or 0)) / max(1e-9, now - self.started)
        left = clock((total - done) / rate) if rate else "?"
        return f"{done:,}/{total:,}  {rate:,.1f} {self.unit}/s  {left} left"

    def close(self) -> None:
        """End the line."""
        if self.terminal and self.drawn:
            self.out.write("\n")


def tracked(items: Sequence[Item], progress: Report | None) -> Iterator[Item]:
    """The items one by one; progress (None for none) is told of each that is done."""
    for done, item in enumerate(items, 1):
        yield item
        if progress:
            progress(done, len(items), "")


def clock(seconds: float) -> str:
    """75 -> '1:15'; 3700 -> '1:01:40'."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
