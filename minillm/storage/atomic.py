"""Writing files so that a crash, a full disk or a kill never leaves half a file behind."""
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

AnyPath = str | os.PathLike


@contextmanager
def atomic_write(path: AnyPath, mode: str = "w", **kwargs: Any) -> Iterator[IO]:
    """Yield a file; on success it replaces `path` in one step, on any error `path` stays as it was.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and only then renamed over
    `path` (POSIX renames are atomic). Raises OSError as the file system does (disk full, no permission).
    """
    path = Path(path)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)   # mkstemp makes files private
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def sync_directory(path: AnyPath) -> None:
    """Make the names in a directory durable (a rename is only on the disk once its directory is)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: AnyPath, document: object, end: str = "", **layout: Any) -> None:
    """A document as JSON, and `end`, replaced in one step. layout: of json.dumps. Raises ValueError naming the file."""
    with atomic_write(path) as file:
        file.write(dump_json(document, path, **layout) + end)


def dump_json(value: object, what: object, **layout: Any) -> str:
    """json.dumps; what has no JSON is a ValueError that begins with `what`."""
    try:
        return json.dumps(value, **layout)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: cannot be written as JSON: {error}") from None


def write_jsonl(path: AnyPath, records: Iterable[dict]) -> None:
    """One JSON object a line, replaced in one step."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
