"""Writing files so that a crash, a full disk or a kill never leaves half a file behind."""
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:                         # a system without POSIX locks goes without
    fcntl = None                            # type: ignore[assignment]

AnyPath = str | os.PathLike
TAKEN = (errno.EACCES, errno.EAGAIN)        # errors of a lock that another process has
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-z_]{8}\.tmp", re.DOTALL)


def printable(path: AnyPath) -> str:
    """A file's name as text that can be printed and written: bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def atomic_write(path: AnyPath, mode: str = "w", **kwargs: Any) -> Iterator[IO]:
    """Yield a file; on success it replaces `path` in one step, on any error `path` stays as it was.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and only then renamed over
    `path` (POSIX renames are atomic). What killed writers of `path` left is removed. Raises OSError as the file system
    does (disk full, no permission), IsADirectoryError before anything is written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{printable(path)} is a directory: a file is to be written")
    if "b" not in mode:
        kwargs = {"encoding": "utf-8", "errors": "backslashreplace"} | kwargs      # half a surrogate pair has no UTF-8
    remove_leftovers(path.parent, path.name)
    fd, temporary = open_temporary(path)
    try:
        with os.fdopen(fd, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def open_temporary(path: Path) -> tuple[int, Path]:
    """(descriptor, name) of a fresh hidden file beside `path`, with the umask's rights, locked while it is open."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        lock_file(fd)
        return fd, temporary


def lock_file(fd: int) -> bool:
    """Lock an open file for this process; False if another has. Where there are no locks nothing is known: True."""
    if fcntl:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in TAKEN
    return True


def remove_leftovers(directory: AnyPath, name: str | None = None) -> None:
    """Remove the temporary files of killed writers (of the file `name`, or of all): those that nobody has locked."""
    for path in Path(directory).iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if not found or found[1] != (name or found[1]):
            continue
        try:
            with open(path, "rb") as file:
                if fcntl and lock_file(file.fileno()):
                    path.unlink()
        except OSError:                                  # not ours to read, or gone in the meantime
            pass


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
