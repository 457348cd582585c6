"""Records in batches, as lines of JSON, and where the output of a data command may be."""
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

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


def json_line(record: dict) -> str:
    """The record as a line of JSON in UTF-8."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        line = json.dumps(finite(record), ensure_ascii=False) + "\n"
    if line.isascii() or encodable(line):
        return line
    return json.dumps(finite(record)) + "\n"     # half a surrogate pair in another field: spelt as it was, in ASCII


def finite(value: Any) -> Any:
    """A value for JSON, which knows neither NaN nor infinity: null in their place."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def encodable(text: str) -> bool:
    """Whether UTF-8 can encode the text, which it cannot if there is half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def weight(document: tuple[str, str, dict]) -> int:
    """Characters and items that a (name, text, record) holds, about: records may hold far more than their text."""
    return sum(len(value) for value in document[2].values() if isinstance(value, (str, list, dict)))


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
