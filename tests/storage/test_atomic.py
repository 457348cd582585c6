"""Files replaced in one step: the umask's rights, and nothing left behind by writers that were killed."""
import os
import signal
import subprocess
import sys

import pytest

from minillm.storage.atomic import atomic_write, remove_leftovers
from minillm.storage.lock import exclusive

WRITER = """
import sys, time
from minillm.storage.atomic import atomic_write
with atomic_write(sys.argv[1]) as file:
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing tmp_path/model."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "model")], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    yield child
    child.kill()
    child.communicate()


def write(path):
    with atomic_write(path) as file:
        file.write("new")


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_the_umask_is_kept(tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_killed_writer_is_cleared_up_at_the_next_start(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    (left,) = tmp_path.glob(".model.*.tmp")
    write(tmp_path / "other")
    assert left.exists()                                     # of another file: not ours to judge
    write(tmp_path / "model")
    assert not left.exists() and (tmp_path / "model").read_text() == "new"
    (tmp_path / "data").mkdir()
    left.touch(), (tmp_path / "data" / left.name).touch(), (tmp_path / ".mine.tmp").touch()
    with exclusive(tmp_path):
        assert sorted(path.name for path in tmp_path.rglob("*.tmp")) == [".mine.tmp"]


def test_a_writer_at_work_keeps_its_file(tmp_path, writer):
    write(tmp_path / "model")
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.glob(".model.*.tmp"))) == 1


def test_a_directory_is_no_file_to_write(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"^{tmp_path} is a directory: "), atomic_write(tmp_path):
        raise AssertionError("nothing is written for it")
