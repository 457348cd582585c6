"""Which compiled modules are used: those beside the package, an installed minillm's of the same version, or none;
and who says so."""
import json
import os
import shutil
import subprocess
import sys

import pytest

from minillm.kernels import load, select
from tests.build.trees import ROOT

HERE = ROOT / "minillm" / "_cpp"


@pytest.fixture
def checkout(tmp_path):
    """A copy in which nothing is built."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "failed.json", "results")
    for package in ("minillm", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / "checkout" / package, ignore=ignored)
    return tmp_path / "checkout"


def run(checkout, *arguments, installed=None):
    """`python -m`, with another minillm on the path or none."""
    return subprocess.run([sys.executable, "-m", *arguments], cwd=checkout, capture_output=True, text=True, check=False,
                          env={name: text for name, text in os.environ.items() if not name.startswith("MINILLM_")}
                          | {"PYTHONPATH": str(installed or "")})


@pytest.mark.skipif(select._cpp is None, reason="no kernels are built")
def test_an_unbuilt_checkout_uses_what_is_installed(checkout):
    done = run(checkout, "minillm", "info", installed=ROOT)
    said = done.stdout
    assert f"(nothing is built in this checkout: those of {HERE})" in said and "in use" in said, done.stderr


def test_another_version_is_not_used_and_benchmarks_refuse(checkout):
    """They would measure NumPy alone; `minillm` runs, and says how to build."""
    (checkout / "minillm" / "version.py").write_text('__version__ = "0.0.1"\n')
    done = run(checkout, "minillm", "info", installed=ROOT)
    assert done.returncode == 0 and "everything runs on NumPy. To build them: pip install" in done.stdout
    done = run(checkout, "benchmarks", "gelu", installed=ROOT)
    assert done.returncode == 2 and "error: the kernels are not built: pip install" in done.stderr, done.stderr


def test_a_failed_compiler_is_remembered(checkout):
    (checkout / "minillm" / "version.py").write_text('__version__ = "0.0.1"\n')
    note = {load.best(): "g++ failed, see build/x.log"}
    (checkout / "minillm" / "_cpp" / "failed.json").write_text(json.dumps(note))
    done = run(checkout, "minillm", "info")
    assert f"{load.best():<10}not built: g++ failed, see build/x.log" in done.stdout
    assert "everything runs on NumPy, which is slow, since the kernels are not built: g++ failed" in done.stderr


def test_modules_for_a_better_cpu_are_passed_over(monkeypatch):
    """As in a folder shared by several machines: no crash, and `minillm info` says why."""
    monkeypatch.setattr(load, "cpu_flags", lambda: {"avx2", "fma"})
    monkeypatch.setattr(load, "find_spec", lambda name: name.endswith("avx512"))
    assert load.status()["avx512"].startswith("this CPU lacks avx512bw") and load.best() == "avx2"
    assert load.load() is None and load.status()["avx2"].startswith("not built: pip install")


@pytest.mark.parametrize("name, line", [("cuda", "MINILLM_CUDA=1 pip install"),
                                        ("cudasim", "MINILLM_BUILD=all pip install"), ("text", "pip install")])
def test_what_is_missing_has_a_line_that_builds_it(name, line):
    assert load.how(name).startswith(line)
