"""Records in batches, and where the output of a data command may be."""
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Records = list[tuple[str, str, dict]]       # of (name, text, record): a batch of documents


def check_paths(inputs: Iterable[str | os.PathLike], output: str | os.PathLike) -> tuple[list[Path], Path]:
    """Both as Path. Raises ValueError for an output that is no .jsonl or an input, FileNotFoundError for its folder."""
    paths, target = [Path(path) for path in inputs], Path(output)
    if target.suffix != ".jsonl":
        raise ValueError(f"the output must be a .jsonl file: got {target}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}")
    for path in paths:
        if path.resolve() == target.resolve() or path.is_dir() and target.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"the output {target} is among the inputs ({path}), and would be read the next time")
    return paths, target


def batched(items: Iterable, size: Callable, limit: int, most: int | None = None) -> Iterator[list]:
    """Lists of consecutive items: one is full when the sizes in it reach `limit`, or when it holds `most`."""
    batch, total = [], 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= limit or len(batch) == most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
