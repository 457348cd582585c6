"""What is said to be on the disk is: the order of fsyncs, renames and removals, as the system is asked for them.

After a power cut a file holds what was synced, and a directory the names it had when it was synced; what came after may
be there or not, in any order. So contents are synced before a rename puts them in the old ones' place, the directory
after it, and the old ones go only then. Kills, of which a running system forgets nothing, cannot show this.
"""
import os
import shutil

import numpy as np
import pytest

from minillm.storage import atomic, directories
from minillm.storage.atomic import atomic_write, write_json, write_jsonl
from minillm.storage.directories import recover_directory, replace_directory
from minillm.storage.safetensors import write_safetensors


class Disk:
    """Records what is asked of the system, and checks what must come before."""

    def __init__(self, monkeypatch):
        self.events, self.synced = [], {}                       # synced: inode -> its contents, or its names
        self.real = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "unlink", "rmdir")}
        self.rmtree = shutil.rmtree
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "rename", self.rename("rename"))
        monkeypatch.setattr(os, "replace", self.rename("replace"))
        monkeypatch.setattr(os, "unlink", self.removal(self.real["unlink"]))
        monkeypatch.setattr(shutil, "rmtree", self.removal(self.rmtree))

    def fsync(self, file):
        fd = file if isinstance(file, int) else file.fileno()
        self.synced[os.fstat(fd).st_ino] = self.contents(f"/proc/self/fd/{fd}")
        self.events.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
        self.real["fsync"](fd)

    def rename(self, name):
        def renamed(source, target, **options):
            self.check_whole(source)
            self.real[name](source, target, **options)
            self.events.append(("rename", os.path.basename(source), os.path.basename(target)))
        return renamed

    def removal(self, function):
        def removed(path, *args, **options):
            if "dir_fd" not in options:                         # else a part of a tree that is being removed
                self.check_names(os.path.dirname(path))
                self.events.append(("remove", os.path.basename(path)))
            function(path, *args, **options)
        return removed

    @staticmethod
    def contents(path):
        if os.path.isdir(path):
            return sorted((entry.name, entry.inode()) for entry in os.scandir(path))
        with open(path, "rb") as file:
            return file.read()

    def check_whole(self, path):
        """Is all that lies there on the disk?"""
        inside = [os.path.join(folder, name) for folder, folders, files in os.walk(path) for name in folders + files]
        for part in [path, *inside]:
            assert self.synced.get(os.stat(part).st_ino) == self.contents(part), f"{part} is in use before it is synced"

    def check_names(self, folder):
        synced = self.synced.get(os.stat(folder).st_ino)
        assert synced == self.contents(folder), f"{folder} is not synced, yet its old files go"


@pytest.fixture
def disk(monkeypatch):
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("reads names from /proc")
    return Disk(monkeypatch)


def large(path):
    with atomic_write(path, "wb") as file:
        for _ in range(3):
            file.write(b"x" * 100_000)
        file.write(b"the end, in a buffer")


WRITERS = {"atomic_write": large, "write_json": lambda path: write_json(path, {"a": 1}),
           "write_jsonl": lambda path: write_jsonl(path, [{"a": 1}, {"b": 2}]),
           "write_safetensors": lambda path: write_safetensors(path, {"a": np.ones(9), "b": np.ones(6, "float32")})}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_is_synced_renamed_and_its_directory_synced(tmp_path, disk, write):
    for _ in range(2):
        disk.events.clear()
        write(tmp_path / "model")
        (first, temporary), (second, source, target), last = disk.events
        assert (first, second, target, last) == ("fsync", "rename", "model", ("fsync", tmp_path.name))
        assert temporary == source != "model"
        disk.check_whole(tmp_path / "model")                    # nothing came from a buffer since
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def fill(generation):
    def write(directory):
        (directory / "sub").mkdir()
        for name in ("a", "b", "sub/c"):
            (directory / name).write_text(f"{generation}" * 5000)
    return write


def test_a_directory_is_synced_before_it_takes_the_place_of_the_old_one(tmp_path, disk):
    replace_directory(tmp_path / "last", fill(1))
    assert disk.events[-2:] == [("rename", ".last.tmp", "last"), ("fsync", tmp_path.name)]
    disk.events.clear()
    disk.synced[os.stat(tmp_path / "last").st_ino] = Disk.contents(tmp_path / "last")
    replace_directory(tmp_path / "last", fill(2))
    assert {name for event, name in disk.events[:-4]} == {"a", "b", "c", "sub", ".last.tmp"}
    assert disk.events[-4:] == [("rename", "last", ".last.old"), ("rename", ".last.tmp", "last"),
                                ("fsync", tmp_path.name), ("remove", ".last.old")]


def test_a_recovered_directory_is_durable_before_anything_goes(tmp_path, disk):
    for name in (".last.old", ".last.tmp"):
        (tmp_path / name).mkdir()
        fill(1)(tmp_path / name)
    directories.sync_tree(tmp_path / ".last.old")
    disk.events.clear()
    recover_directory(tmp_path / "last")
    assert disk.events == [("rename", ".last.old", "last"), ("fsync", tmp_path.name), ("remove", ".last.tmp")]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_file_that_cannot_be_synced_or_renamed_leaves_the_old_one(tmp_path, monkeypatch, name):
    def fail(*args):
        raise OSError(5, "Input/output error")

    write_json(tmp_path / "model", 1)
    monkeypatch.setattr(atomic.os, name, fail)
    with pytest.raises(OSError, match="Input/output"):
        write_json(tmp_path / "model", 2)
    assert (tmp_path / "model").read_text() == "1" and len(list(tmp_path.iterdir())) == 1


def test_these_are_the_only_ways_to_the_disk():
    """Whoever renames or syncs does it in storage/, where the order is held by the tests above."""
    package = directories.Path(atomic.__file__).parents[1]
    others = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.parent.name != "storage"
              and any(word in path.read_text() for word in ("os.replace(", "os.rename(", ".rename(", "fsync("))}
    assert not others
