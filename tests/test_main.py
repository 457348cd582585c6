"""What ends a command that is no mistake of the user's input: one line or nothing, never a traceback."""
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from minillm import __main__ as command_line
from minillm.commands import info


@pytest.mark.parametrize("error, words", [
    (MemoryError("Unable to allocate 9 TiB"), "not enough memory, a smaller model or batch needs less: Unable to"),
    (RecursionError("maximum recursion depth"), "nested too deeply"),
    (BrokenProcessPool("a child"), "a worker process died"), (OSError(12, "Cannot allocate memory"), "memory")])
def test_the_system_s_errors_get_one_line(monkeypatch, capsys, error, words):
    def fails(args):
        raise error
    monkeypatch.setattr(info, "info", fails)
    assert command_line.main(["info"]) == 1
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error():
    for arguments, code in (["info"], 141), (["data", "--help"], 0):
        child = subprocess.Popen([sys.executable, "-m", "minillm", *arguments], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        child.stdout.close()
        assert child.stderr.read() == "" and child.wait() == code


def test_a_terminal_of_ascii_is_enough(tmp_path):
    (tmp_path / "text.txt").write_text("naïve café, 日本語 and “quotes”. " * 80, encoding="utf-8")
    environment = {"PYTHONIOENCODING": "ascii:strict", "PATH": "/usr/bin:/bin"}
    shape = [f"--set={k}={v}" for k, v in {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 9, "steps": 1}.items()]
    for arguments in (["train", "--data", "text.txt", "--out", "r", "--vocab-size", "300", *shape],
                      ["generate", "r", "-p", "naïve 日本", "-n", "20"]):
        child = subprocess.run([sys.executable, "-m", "minillm", *arguments], cwd=tmp_path, capture_output=True,
                               text=True, env=environment | {"PYTHONPATH": ":".join(sys.path)})
        assert child.returncode == 0 and "Traceback" not in child.stderr, child.stderr
