"""Records of .jsonl, .json and .parquet files, one by one, each with its place in the file."""
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...storage.atomic import AnyPath, printable
from . import containers
from .files import READ_ERRORS, opened
from .plain_text import LONGEST_LINE, numbered_lines
from .report import Unusable

SHOWN = 5                      # malformed records named in one error
BETWEEN = re.compile(r"\s*,?\s*")             # two values of a list
Numbered = Iterator[tuple[int, Any]]


def read_jsonl(path: AnyPath, convert: Callable[[dict], Any]) -> list:
    """convert(record) of every line. All lines are read before the first few that are malformed are reported."""
    converted, problems = convert_records(path, convert)
    if problems:
        raise ValueError("malformed records\n" + listed(problems))
    return converted


def convert_records(path: AnyPath, convert: Callable[[dict], Any]) -> tuple[list, list[str]]:
    """([convert(record), ...], ["PATH:LINE: why", ...]): what could be converted, and what could not (ValueError).

    Raises ValueError for a file that cannot be read, or without any record; OSError as the file system does.
    """
    converted, problems = list[Any](), list[str]()
    for number, record in records(path):
        try:
            if isinstance(record, Unusable):
                raise ValueError(str(record))
            if not isinstance(record, dict):
                raise ValueError(f"expected a JSON object: got {type(record).__name__}")
            converted.append(convert(record))
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: {error}")
    if not converted and not problems:
        raise ValueError(f"{path}: no records: expected one JSON object a line")
    return converted, problems


def listed(problems: list[str]) -> str:
    """The first few, and how many more there are."""
    more = f"\n... and {len(problems) - SHOWN} more lines" if len(problems) > SHOWN else ""
    return "\n".join(problems[:SHOWN]) + more


def records(path: AnyPath) -> Numbered:
    """(line, record) of a file by its suffix; (row, record) of a table. For a record that is broken, why: Unusable.

    .json: a list of records, one record, or, as many files of that name are, a record a line. Others, also compressed
    (.gz, .zst), hold a record a line.
    """
    path, name = Path(path), Path(path).name.lower()
    try:
        if name.endswith(".parquet"):
            yield from map(parsed, containers.parquet_lines(path))
        elif name.endswith(".json") and (found := json_values(path)) is not None:
            yield from found
        else:
            with opened(path, name) as raw, io.BufferedReader(raw) as file:
                yield from map(parsed, numbered_lines(file))
    except Unusable as error:
        raise ValueError(f"{printable(path)}: {error}") from None
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno:          # of the file system, not a damaged archive
            raise
        raise ValueError(f"{printable(path)}: unreadable") from None


def parsed(numbered: tuple[int, bytes | None]) -> tuple[int, Any]:
    """A numbered line, and what it says, or why it says nothing."""
    number, line = numbered
    if line is None:
        return number, Unusable(f"longer than {LONGEST_LINE >> 20} MiB")
    try:
        return number, json.loads(line.decode("utf-8-sig").rstrip("\r\n"))
    except json.JSONDecodeError as error:                                     # its own "line 1" would contradict ours
        return number, Unusable(f"no JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:                             # a line that is no UTF-8 is malformed
        return number, Unusable(str(error))


def json_values(path: Path) -> Numbered | None:
    """(line, record) of a file that is one JSON value; None for one that is a value a line."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    if text.lstrip()[:1] == "[":
        return list_values(text.strip())
    try:
        return iter([(1, json.loads(text))])
    except (ValueError, RecursionError):
        return None


def list_values(text: str) -> Numbered:
    """(line, value) of each value in a JSON list. What follows a broken one cannot be read: it is the last."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    place = BETWEEN.match(text, 1).end()                                         # type: ignore[union-attr]
    while not text.startswith("]", place):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield line, Unusable("no JSON: the list breaks off here, and the rest is not read")
            return
        yield line, value
        place = BETWEEN.match(text, place).end()                                 # type: ignore[union-attr]
