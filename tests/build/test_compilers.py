"""Clang takes every file of the kernels with AVX-512 and AMX; so does GCC for another architecture (NEON). CI also
builds the kernels for AVX2 by Clang, and runs their tests (tests/rebuilt.sh)."""
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.build.trees import ROOT

pytest.importorskip("pybind11")
pytest.importorskip("setuptools")


def first_of(*names):
    return next((name for name in names if shutil.which(name)), None)


CLANG = first_of("clang++", *(f"clang++-{version}" for version in range(30, 13, -1)))
CROSS = first_of("aarch64-linux-gnu-g++", *(f"aarch64-linux-gnu-g++-{version}" for version in range(20, 10, -1)))


@pytest.mark.parametrize("compiler, part", [(CLANG, "amx"), (CROSS, "scalar")], ids=["clang-amx", "aarch64"])
def test_every_file_compiles(compiler, part, monkeypatch, tmp_path):
    """Without optimization, to be quick. AMX has all of AVX-512, too."""
    if compiler is None:
        pytest.skip("the compiler is not installed")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("CXXFLAGS", "-O0")
    build = runpy.run_path("setup.py")
    if part not in build["PARTS"]:
        pytest.skip("of another architecture")
    build["BUILD"].mkdir(parents=True, exist_ok=True)
    build["copy_pybind11"]()

    def compile_to_nothing(command):
        command = command[:command.index("-MMD")] + ["-c", command[command.index("-c") + 1], "-o", "/dev/null"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(compile_to_nothing, [command for _, command in build["compilations"](part)]):
            assert done.returncode == 0, done.stderr
