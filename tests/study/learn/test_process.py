"""Whatever a learner's file does to itself, the verdict is one clear line, and soon."""
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minillm
from minillm.study.learn.path import exercise_called
from minillm.study.learn.process import judged

EXERCISE = exercise_called("linear_backward")
HEAD = "    x, weight = cache\n"


def last(tmp_path, line="", top="", seconds=60.0):
    """The last stage of the reference with a line put into its backward, or above everything."""
    text = EXERCISE.reference()
    assert HEAD in text
    path = tmp_path / "linear_backward.py"
    path.write_text(f"{top}\n{text.replace(HEAD, f'{HEAD}    {line}') if line else text}")
    return list(judged(EXERCISE, path, seconds))[-1]


@pytest.mark.parametrize("line, words", [
    ("exit()\n", "it calls exit(), which ends the program"),
    ("import os; os._exit(0)\n", "the process ended: os._exit, perhaps (exit code 0)"),
    ("import ctypes; ctypes.string_at(0)\n", "killed by signal 11"),
    ("raise KeyError('deep')\n", "in linear_backward (raise KeyError('deep')): KeyError: 'deep'"),
    ("x.nonsense()\n", "AttributeError: 'numpy.ndarray' object has no attribute 'nonsense'"),
    ("return linear_backward(dout, cache)\n", "RecursionError"),
    ("bytearray(10 ** 11)\n", "it asks for too much memory"),
    ("while True: print('x' * 1000)\n", "it prints, or writes to a file, more than a megabyte"),
    ("input()\n", "EOFError"),
    ("print('see', x.shape); return 1\n", "got 1 [it printed: see (2, 5, 6)]"),
    ("return\n", "linear_backward returns None: is a `return` missing?"),
    ("dx = ...\n", "`...` still stands there"),
    ("return dout, (x, ...)\n", "`...` still stands there"),
    ("if x y\n", "no Python (invalid syntax): if x y"),
])
def test_one_clear_line(line, words, tmp_path):
    stage = last(tmp_path, line)
    assert not stage.passed and words in stage.message and "\n" not in stage.message


def test_a_loop_without_end_is_cut_short(tmp_path):
    start = time.monotonic()
    stage = last(tmp_path, "while True: pass\n", seconds=1)
    assert "it did not come back within 1 s: a loop without end?" in stage.message and not stage.passed
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("top, words", [
    ("from minillm.ops import linear_backward as theirs", "imports minillm.ops.linear_backward, which would do"),
    ("import torch", "imports torch, which would do the exercise for you"),
    ("raise SystemExit", "it calls exit()"),
    ("\0", "null bytes"),
])
def test_the_file_as_a_whole(top, words, tmp_path):
    assert words in last(tmp_path, top=top).message


def test_prints_and_threads_do_no_harm(tmp_path):
    stage = last(tmp_path, "print('debug')\n", top="import threading, time\n"
                 "threading.Thread(target=time.sleep, args=(60,)).start()\nprint('top')")
    assert stage.passed and stage.name == "speed"


def test_nothing_is_left_beside_the_file(tmp_path):
    last(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["linear_backward.py"]


def test_files_of_other_editors(tmp_path):
    path = tmp_path / "linear_backward.py"
    path.write_bytes(b"\xef\xbb\xbf" + EXERCISE.reference().replace("\n", "\r\n").encode())
    assert list(judged(EXERCISE, path))[-1].passed
    path.write_bytes(b"\xff\xfe" + EXERCISE.reference().encode())
    assert "no Python" in list(judged(EXERCISE, path))[-1].message


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    """Neither from a file nor from stdin; its settings of threads stay as they are."""
    (tmp_path / "linear_backward.py").write_text(EXERCISE.template())
    script = ("import os, sys\nfrom minillm.__main__ import main\nprint('once')\n"
              "main(['learn', 'check', 'linear_backward.py'])\nprint(os.environ.get('OMP_NUM_THREADS'))\n")
    (tmp_path / "script.py").write_text(script)
    for words, given in (["script.py"], ""), (["-"], script):
        environment = {**os.environ, "PYTHONPATH": str(Path(minillm.__file__).parents[1]), "OMP_NUM_THREADS": "3"}
        done = subprocess.run([sys.executable, *words], input=given, cwd=tmp_path, env=environment, text=True,
                              capture_output=True, timeout=120)
        assert done.stdout.count("once") == 1 and done.stdout.endswith("3\n") and not done.stderr, done.stderr
        assert "`...` still stands there" in done.stdout


def test_other_signatures(tmp_path):
    path = tmp_path / "linear_backward.py"
    path.write_text(EXERCISE.reference().replace("def linear_backward(dout, cache)", "def linear_backward(dout)"))
    assert "must take (dout, cache), as in the template" in list(judged(EXERCISE, path))[-1].message
    path.write_text(EXERCISE.reference().replace("def linear_backward", "def backward"))
    assert "there is no function linear_backward" in list(judged(EXERCISE, path))[-1].message
