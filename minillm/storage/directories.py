"""Directories replaced as a whole: a kill at any moment leaves the old or the new one, complete.

Several files cannot be renamed in one step, but their directory can: `replace_directory` fills a hidden sibling, makes
it durable, and swaps. At every instant the old or the new directory is whole, and `recover_directory` finds it.
"""
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .atomic import AnyPath, sync_directory


def replace_directory(path: AnyPath, fill: Callable[[Path], None]) -> None:
    """Replace the directory `path`, as a whole, by what `fill(directory)` writes into an empty one.

    A kill or a crash at any moment leaves the old or the new directory, complete and on the disk; call
    `recover_directory` before reading. If `fill` raises (a full disk, say) the old directory stays and the error
    goes on. The half-built and the outgoing directory are hidden siblings: `.NAME.tmp` and `.NAME.old`.
    """
    path, temporary, old = siblings(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: expected a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_directory(path)
    try:
        temporary.mkdir()
        fill(temporary)
        sync_tree(temporary)
        if path.exists():
            path.rename(old)   # from here to the next rename there is no `path`: the case recover_directory mends
        temporary.rename(path)
        sync_directory(path.parent)
        remove(old)   # only now: the new one is durable
    except BaseException:
        recover_directory(path)
        raise


def recover_directory(path: AnyPath) -> None:
    """Undo an interrupted `replace_directory`: afterwards `path` is whole, or absent if it was never completed."""
    path, temporary, old = siblings(path)
    if old.exists() and not path.exists():
        old.rename(path)
        sync_directory(path.parent)
    remove(old)
    remove(temporary)


def siblings(path: AnyPath) -> tuple[Path, Path, Path]:
    """The directory itself (a link is followed), its half-built successor and its predecessor."""
    path = Path(path).resolve()
    return path, path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")


def remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def sync_tree(directory: Path) -> None:
    """Force every file and directory below `directory`, and itself, to the disk."""
    for folder, _, files in os.walk(directory):
        for name in files:
            with open(Path(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(folder)
