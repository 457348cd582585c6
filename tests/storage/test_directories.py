"""Directories replaced as a whole: kills and full disks at any moment leave the old one or the new one."""
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from some_params import CONFIG, random_params, save_run

from minillm.models.pretrained import write_model
from minillm.storage.directories import recover_directory, replace_directory
from minillm.train.checkpoint import load_training


def test_replace_directory_swaps_the_whole(tmp_path):
    run = tmp_path / "runs" / "last"
    replace_directory(run, lambda d: save_run(d, step=1))
    (run / "stray").write_text("of the old generation")
    replace_directory(run, lambda d: save_run(d, step=2))
    assert load_training(run)[2]["step"] == 2 and not (run / "stray").exists()
    assert [path.name for path in run.parent.iterdir()] == ["last"]


@pytest.mark.parametrize("first", [False, True])
def test_a_failing_fill_leaves_the_old_directory(tmp_path, first):
    run = tmp_path / "last"
    if not first:
        replace_directory(run, lambda d: save_run(d, step=1))

    def fill(directory):
        write_model(directory, CONFIG, random_params())
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        replace_directory(run, fill)
    assert [path.name for path in tmp_path.iterdir()] == ([] if first else ["last"])
    assert first or load_training(run)[2]["step"] == 1


@pytest.mark.parametrize("failing", ["path", "temporary"])
def test_a_failing_rename_leaves_the_old_directory(tmp_path, monkeypatch, failing):
    run = tmp_path / "last"
    replace_directory(run, lambda d: save_run(d, step=1))
    rename = Path.rename

    def fail(self, target):
        if self.name == {"path": "last", "temporary": ".last.tmp"}[failing]:
            raise OSError("input/output error")
        return rename(self, target)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="input/output"):
        replace_directory(run, lambda d: save_run(d, step=2))
    assert load_training(run)[2]["step"] == 1 and [path.name for path in tmp_path.iterdir()] == ["last"]


def test_links_are_followed_and_files_refused(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "last").symlink_to(tmp_path / "disk")
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=3))
    assert (tmp_path / "last").is_symlink() and load_training(tmp_path / "disk")[2]["step"] == 3
    (tmp_path / "file").write_text("precious")
    with pytest.raises(NotADirectoryError, match="file"):
        replace_directory(tmp_path / "file", save_run)
    assert (tmp_path / "file").read_text() == "precious"


def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            cwd=Path(__file__).parents[2])


def test_full_disk_leaves_the_old_checkpoint(tmp_path):
    """RLIMIT_FSIZE makes the kernel itself refuse the write half-way through a file."""
    pytest.importorskip("resource")
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=1))
    code = """if True:
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        from minillm.storage.directories import replace_directory
        from some_params import save_run
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            replace_directory(sys.argv[1], lambda d: save_run(d, step=2))
        except OSError as error:
            print(error.strerror)
    """
    output, _ = python(code, tmp_path / "last", Path(__file__).parents[1]).communicate(timeout=60)
    assert "large" in output   # EFBIG: the limit did bite
    assert load_training(tmp_path / "last")[2]["step"] == 1 and len(list(tmp_path.iterdir())) == 1


GENERATIONS = """if True:
    import os, sys
    from pathlib import Path
    from minillm.storage.directories import recover_directory, replace_directory

    def fill(generation):
        def write(directory):
            (directory / "sub").mkdir()
            for name in ("a", "b", "c", "sub/d"):
                (directory / name).write_text(f"{generation} " * 1000)
        return write

    def generation(path):
        "The one number that all the files carry, or 0 where there is no directory; AssertionError where they differ."
        if not path.exists():
            return 0
        texts = {(path / name).read_text() for name in ("a", "b", "c", "sub/d")}
        words = set(" ".join(texts).split())
        assert len(texts) == 1 and len(words) == 1 and len(texts.pop().split()) == 1000, "torn"
        return int(words.pop())
"""


def test_sigkill_before_every_file_operation(tmp_path):
    """A child is killed before its n-th open, mkdir, rename or removal, for every n; each time the old or the new
    directory is found whole, and the one after a finished swap is the new one."""
    code = GENERATIONS + """
    EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def die_before(n):
        count = 0
        def hook(event, arguments):
            nonlocal count
            count += event in EVENTS
            if count == n:
                os.kill(os.getpid(), 9)
        sys.addaudithook(hook)

    path, seen = Path(sys.argv[1]), []
    for start in (0, 1):   # the first checkpoint of a run, and a later one
        for n in range(1, 200):
            recover_directory(path)
            before = generation(path) if start else 0
            if not start and path.exists():
                os.rename(path, path.with_name(f"done{n}"))
            child = os.fork()
            if child == 0:
                die_before(n)
                replace_directory(path, fill(before + 1))
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            recover_directory(path)
            seen.append((start, generation(path) - before))
            assert seen[-1][1] in (0, 1), seen
            assert sorted(p.name for p in path.parent.glob("*last*")) == ["last"] * path.exists()
            if status == 0:
                assert seen[-1][1] == 1
                break
        assert status == 0, "never finished"
    print(len(seen), *{f"{start}{new}" for start, new in seen})
    """
    child = python(code, tmp_path / "last")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    kills, *outcomes = output.split()
    assert int(kills) > 30 and set(outcomes) == {"00", "01", "10", "11"}   # killed before the swap and after it


def test_sigkill_at_random_moments(tmp_path):
    """The same with real time: the writer is killed wherever it happens to be, and another goes on from there."""
    code = GENERATIONS + """
    path = Path(sys.argv[1])
    recover_directory(path)
    number = generation(path)
    print("ready", flush=True)
    while True:
        number += 1
        replace_directory(path, fill(number))
    """
    namespace, moments, last = {}, random.Random(0), 0
    exec(GENERATIONS, namespace)
    for _ in range(10):
        child = python(code, tmp_path / "last")
        child.stdout.readline()
        time.sleep(moments.uniform(0.02, 0.15))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        recover_directory(tmp_path / "last")
        found = namespace["generation"](tmp_path / "last")
        assert found >= last
        last = found
    assert last > 10   # the writers did get on


def test_recovery_after_a_kill_between_the_renames(tmp_path):
    replace_directory(tmp_path / "last", lambda d: save_run(d, step=1))
    (tmp_path / "last").rename(tmp_path / ".last.old")
    (tmp_path / ".last.tmp").mkdir()
    recover_directory(tmp_path / "last")
    assert load_training(tmp_path / "last")[2]["step"] == 1 and len(list(tmp_path.iterdir())) == 1
    shutil.rmtree(tmp_path / "last")
    recover_directory(tmp_path / "last")   # nothing to recover is no error
