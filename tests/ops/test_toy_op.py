"""An op is one Python file and one C++ file: that of CONTRIBUTING.md, in a copy of the tree, is built, checked,
benchmarked and listed."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.kernels import select

ROOT = Path(__file__).resolve().parents[2]
ISA = getattr(select._cpp, "__name__", "").rpartition(".")[2]
pytestmark = [pytest.mark.skipif(not ISA or not shutil.which("g++"), reason="no kernels, or no compiler"),
              pytest.mark.timeout(900)]                 # where all objects must be made, 60 s of CPU time

BENCHMARK = """
import sys
sys.path.append("tests")
import pytest
from benching import PEAKS, hurried
from benchmarks import __main__ as cli, machine
machine.peaks = lambda threads, dtypes: PEAKS
hurried(pytest.MonkeyPatch())
sys.exit(cli.main(sys.argv[1:]))
"""                                                   # python -m benchmarks, with the short bursts of the other tests


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The copy, built for the instruction set in use; objects that are there already are not made again."""
    for needed in ("pybind11", "setuptools"):
        pytest.importorskip(needed)
    copy, leave_out = tmp_path_factory.mktemp("toy") / "tree", shutil.ignore_patterns("*.so", "__pycache__", "results")
    for folder in ("minillm", "csrc", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=leave_out)
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    for objects in ROOT.glob("build/minillm.*"):
        shutil.copytree(objects, copy / "build" / objects.name)
    recipe = re.findall(r"\*\*((?:minillm|csrc)/\S+)\*\*.*?```\w+\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(),
                        re.S)
    assert [path for path, _ in recipe] == ["minillm/ops/cube.py", "csrc/cpu/cube.cpp"]
    for path, code in recipe:
        (copy / path).write_text(code)
    run(copy, "setup.py", "-q", "build_ext", "--inplace")
    return copy


def run(tree, *command):
    """What Python prints in the tree, with this instruction set alone."""
    settings = {"MINILLM_BUILD": ISA, "MINILLM_CUDA": "0", "MINILLM_CPU": ISA, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, *command], cwd=tree, env=os.environ | settings, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_gradient_is_checked(tree):
    rows = json.loads(run(tree, "-m", "minillm", "gradcheck", "--op", "cube", "--json"))
    assert [(row["backend"], row["method"]) for row in rows] == [
        ("numpy", "central"), ("numpy", "complex"), ("cpu", "central")]


def test_the_generated_tests_take_it(tree):
    files = [f"tests/ops/test_{name}.py" for name in ("contract", "gradients", "bad_inputs", "caches", "table")]
    files.append("tests/study/formulas/test_op_formulas.py")
    said = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cube", *files)
    assert " passed" in said and "failed" not in said


def test_it_is_benchmarked(tree):
    """At GPT-2's sizes: a call that is much shorter is made and checked many times."""
    said = run(tree, "-c", BENCHMARK, "cube", "--threads", "1", "--repeat", "5", "--json", "--out", "-")
    document = json.loads(said)
    assert not document["wrong"]
    assert {(row["op"], row["direction"]) for row in document["rows"]} == {("cube", "forward"), ("cube", "backward")}
    assert {"numpy", "cpu"} <= {row["candidate"] for row in document["rows"]}


def test_it_is_listed(tree):
    assert json.loads(run(tree, "-m", "minillm", "info", "--json"))["ops"]["cube"] == "cpu"
