"""`minillm gradcheck FILE.py:forward,backward`: exit codes, inputs, JSON, the picture."""
import json

import pytest

from minillm.__main__ import main

FILE = '''
import numpy as np

def scale_forward(x, weight, eps=0.0):
    return x * weight + eps, (x, weight)

def scale_backward(dout, cache):
    x, weight = cache
    return dout * weight, (dout * x).sum(0)

def wrong(dout, cache):
    return dout * cache[1], (dout * cache[0])[0]
'''
INPUTS = '\ndef inputs():\n    return {"x": np.ones((2, 3)), "weight": np.arange(3.0)}\n'
SHAPES = ["--inputs", "x=(3,5) weight=(5,)"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("pair, code, words", [
    ("scale_forward,scale_backward", 0, "ok   weight["), ("scale", 0, "ok   x["),
    ("scale_forward,wrong", 1, "the sum over a broadcast axis is missing"),
])
def test_a_pair_of_ones_own(file, pair, code, words, capsys):
    assert main(["gradcheck", f"{file}:{pair}", *SHAPES]) == code
    assert words in capsys.readouterr().out
    assert main(["gradcheck", f"{file}:{pair}", "--json", *SHAPES, "--second-order"]) == code
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["x", "weight", "second order"]


def test_the_files_own_inputs(file, capsys):
    file.write_text(FILE + INPUTS)
    assert main(["gradcheck", f"{file}:scale"]) == 0
    assert "(6 checked" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, words", [
    (["{file}:scale"], "--inputs"), (["{file}"], "FILE.py:forward,backward"), (["{file}:no", *SHAPES], "no_forward"),
    (["nowhere.py:scale", *SHAPES], "nowhere.py is no Python file"),
    (["{file}:scale", "--inputs", "x=(3,5) weigh=(5,)"], "no argument weigh"),
    (["{file}:scale", "--inputs", "x=(3,5)"], "weight, an argument of the forward, is missing"),
    (["{file}:scale", "--inputs", "x=(3,-5) weight=(5,)"], "shape of x must be positive"),
    (["{file}:scale", "--inputs", "x"], "--inputs must be such as"),
    (["{file}:scale", *SHAPES, "--samples", "0"], "--samples must be at least 1"),
    (["{file}:scale", *SHAPES, "--op", "gelu"], "goes without --op"),
])
def test_mistakes_get_one_line_and_exit_code_2(file, arguments, words, capsys):
    assert main(["gradcheck", *(argument.format(file=file) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_picture(file, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["gradcheck", f"{file}:scale", *SHAPES, "--plot", str(tmp_path / "pair.png")]) == 0
    assert main(["gradcheck", "--op", "gelu", "--backend", "numpy", "--plot", str(tmp_path / "op.png")]) == 0
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("pair.png", "op.png"))
