"""What the stages of the data room share: where the output may be, and documents by the batch."""
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def check_paths(inputs: Iterable[str | os.PathLike], output: str | os.PathLike) -> tuple[list[Path], Path]:
    """All as Path. Raises ValueError and FileNotFoundError."""
    inputs, output = [Path(path) for path in inputs], Path(output)
    if output.suffix != ".jsonl":
        raise ValueError(f"the output must be a .jsonl file: got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {output.parent}")
    for path in inputs:
        if path.resolve() == output.resolve() or path.is_dir() and output.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"the output {output} is among the inputs ({path}), and would be read as one the next time")
    return inputs, output


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
