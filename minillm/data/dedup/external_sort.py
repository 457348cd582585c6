"""External merge sort of pairs of numbers: sorted runs on the disk, merged block by block, for more than memory holds.

The textbook's algorithm (Knuth, TAOCP volume 3, 5.4), with NumPy's sort for the runs and for the blocks of the merge:
the next block of every run is taken up to the least of their last keys, which no later key is below.
"""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LEAST = 4096        # pairs held whatever the limit says
RECORD = 64         # bytes of memory a pair takes while it is sorted: 16 of its own, its place, and copies


class ExternalSort:
    """Pairs (key, value) of uint64: `add` them, then draw them from `ranges`, once. Files go to `folder`/`name`.*"""

    def __init__(self, folder: Path, name: str, memory: int):
        """memory: bytes to use, about."""
        self.folder, self.name = folder, name
        self.most = max(LEAST, memory // RECORD)             # pairs in memory together
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self.waiting_count = 0
        self.runs: list[tuple[Path, int]] = []

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """keys, values: (n,). Raises OSError when the disk is full."""
        for start in range(0, len(keys), self.most):
            part = slice(start, start + self.most)
            self.waiting.append((keys[part].astype(np.uint64), values[part].astype(np.uint64)))
            self.waiting_count += len(keys[part])
            if self.waiting_count >= self.most:
                self._write_run()

    def ranges(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (keys, values) in ascending order, by key and then value; equal keys are never in two ranges."""
        if not self.runs:
            if self.waiting:
                yield self._sorted_waiting()
            return
        if self.waiting:
            self._write_run()
        runs = [_Run(path, count) for path, count in self.runs]
        while runs := [run for run in runs if run.at < run.count]:
            block = max(1, self.most // len(runs))
            bound = min(run.keys[min(run.at + block, run.count) - 1] for run in runs)
            yield _sorted([run.take(bound) for run in runs])
        for path, _ in self.runs:
            path.unlink()

    def _sorted_waiting(self) -> tuple[np.ndarray, np.ndarray]:
        together, self.waiting, self.waiting_count = self.waiting, [], 0
        return _sorted(together)

    def _write_run(self) -> None:
        path = self.folder / f"{self.name}.{len(self.runs)}"
        keys, values = self._sorted_waiting()
        with open(path, "wb") as file:
            file.write(keys.data)
            file.write(values.data)
        self.runs.append((path, len(keys)))


class _Run:
    """A sorted file: all keys, then all values."""

    def __init__(self, path: Path, count: int):
        self.path, self.count, self.at = path, count, 0
        self.keys = np.memmap(path, np.uint64, "r", shape=(count,))

    def take(self, bound: np.uint64) -> tuple[np.ndarray, np.ndarray]:
        """The pairs from here on with keys up to `bound`, read and not mapped."""
        start = self.at
        self.at = int(np.searchsorted(self.keys, bound, side="right"))
        keys, values = (np.fromfile(self.path, np.uint64, self.at - start, offset=8 * place)
                        for place in (start, self.count + start))
        return keys, values


def _sorted(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    keys, values = (np.concatenate(columns) for columns in zip(*parts))
    order = np.lexsort((values, keys))
    return keys[order], values[order]
