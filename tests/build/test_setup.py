"""setup.py builds what it is asked for, nothing twice, and leaves nothing stale."""
import json
import shutil
import sysconfig
from pathlib import Path

import pytest

pybind11 = pytest.importorskip("pybind11")
pytest.importorskip("setuptools")
from tests.build.trees import ROOT, extension, setup, toy_tree  # noqa: E402

if not shutil.which("g++"):
    pytest.skip("no compiler", allow_module_level=True)
UNITS = {"csrc/python/text.cpp", "csrc/text/words.cpp"}


@pytest.fixture
def tree(tmp_path):
    return toy_tree(tmp_path / "tree")


@pytest.fixture
def built(tree):
    done, compiled = setup(tree)
    assert done.returncode == 0 and compiled == UNITS and extension(tree, "text").exists(), done.stdout
    return tree


def test_nothing_is_compiled_twice(built):
    """Not after files were touched or the tree was moved, either, nor when pip keeps pybind11 elsewhere,
    as each time."""
    for path in built.rglob("csrc/*/*"):
        path.touch()
    moved = built.rename(built.parent / "moved")
    elsewhere = moved.parent / "pip"
    shutil.copytree(Path(pybind11.__file__).parent, elsewhere / "pybind11")
    done, compiled = setup(moved, PYTHONPATH=str(elsewhere))
    assert done.returncode == 0 and not compiled, done.stdout


@pytest.mark.parametrize("file, stale", [("csrc/text/words.h", UNITS),
                                         ("csrc/text/letters.h", {"csrc/python/text.cpp"}),
                                         ("csrc/text/words.cpp", {"csrc/text/words.cpp"}),
                                         ("csrc/python/data.cpp", set())])
def test_what_read_a_changed_file_is_compiled_again(built, file, stale):
    with open(built / file, "a") as source:
        source.write("// changed\n")
    assert setup(built)[1] == stale


def test_other_flags_and_other_compilers_compile_again(built):
    assert setup(built, CXXFLAGS="-DOTHER")[1] == UNITS
    other = built.parent / "g++"                                   # one that says another version
    other.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo 99; else exec g++ "$@"; fi\n')
    other.chmod(0o755)
    assert setup(built, CXX=str(other))[1] == UNITS


def test_an_interrupted_compilation_is_done_again(built):
    """Its stamp goes first, so half an object never counts."""
    stamp, = built.glob("build/*/text/csrc/text/words.cpp.o.stamp")
    stamp.unlink()
    assert setup(built)[1] == {"csrc/text/words.cpp"}


def test_what_is_stale_and_not_asked_for_is_removed(built):
    setup(built, MINILLM_BUILD="data")
    assert extension(built, "text").exists() and extension(built, "data").exists()
    (built / "csrc/text/words.h").write_text("#define WORDS 7\n")
    setup(built, MINILLM_BUILD="none")
    assert not extension(built, "text").exists() and extension(built, "data").exists()


def test_a_compiler_that_fails_is_not_silent(built):
    """The install goes on without the part, says so, and leaves a note for `minillm info`."""
    (built / "csrc/text/words.cpp").write_text("int words( { return 1; }\n")
    done, _ = setup(built, MINILLM_BUILD="text,data")
    log, = built.glob("build/*/text.log")
    note = f"g++ failed, see {log}"
    assert done.returncode == 0 and f"WARNING: minillm._cpp.text is not built: {note}" in done.stdout
    assert not extension(built, "text").exists() and extension(built, "data").exists()
    assert "words.cpp" in log.read_text() and "error" in log.read_text()
    failed = built / "minillm/_cpp/failed.json"
    assert json.loads(failed.read_text()) == {"text": note}
    (built / "csrc/text/words.cpp").write_text("int words() { return 1; }\n")
    assert setup(built)[0].returncode == 0 and not failed.exists() and extension(built, "text").exists()


def test_no_compiler_at_all(tree):
    done, _ = setup(tree, CXX="no-such-compiler")
    assert done.returncode == 0 and "text is not built: no-such-compiler cannot be run: No such file" in done.stdout


def test_without_openmp_the_kernels_are_built_for_one_thread(tree):
    compiler = tree / "g++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) echo no OpenMP; exit 1;; *) exec g++ "$@";; esac\n')
    compiler.chmod(0o755)
    done, compiled = setup(tree, MINILLM_BUILD="scalar", CXX=str(compiler))
    assert "has no OpenMP, so the kernels will use one thread" in done.stdout
    assert compiled == {"csrc/cpu/ops/gelu.cpp"} and extension(tree, "scalar").exists(), done.stdout


@pytest.mark.parametrize("cc, cxx", [("gcc-12", "g++-12"), ("clang-14", "clang++-14"),
                                     ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")])
def test_the_c_compiler_names_that_of_cpp(tree, cc, cxx):
    done, _ = setup(tree, CC=cc, CXX="", PATH="/none")
    assert f"{cxx} cannot be run" in done.stdout


def test_which_parts(tree):
    """One instruction set, tokenizer and deduplication; all where it is asked for, or for a wheel that others get."""
    count = {}
    for said in ("", "all", "best,text"):
        shutil.rmtree(tree / "minillm/_cpp/", ignore_errors=True)
        (tree / "minillm/_cpp/").mkdir()
        setup(tree, MINILLM_BUILD=said)
        count[said] = sorted(path.name.split(".")[0] for path in tree.glob("minillm/_cpp/*.so"))
    assert len(count[""]) == 3 and {"text", "data"} < set(count[""]) and len(count["best,text"]) == 2
    assert set(count[""]) < set(count["all"]) and {"scalar", "cudasim"} <= set(count["all"])
    wrong, _ = setup(tree, MINILLM_BUILD="avx1024")
    assert wrong.returncode and "no part avx1024: expected all, none, best" in wrong.stdout


def test_nvcc_without_a_driver_is_not_used(tree):
    """Unless MINILLM_CUDA=1 asks for it; then it must do its work."""
    nvcc = tree / "nvcc"
    nvcc.write_text("#!/bin/sh\necho called; exit 1\n")
    nvcc.chmod(0o755)
    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        assert "called" not in setup(tree, MINILLM_BUILD="", MINILLM_NVCC=str(nvcc), MINILLM_CUDA="auto")[0].stdout
    asked, _ = setup(tree, MINILLM_NVCC=str(nvcc), MINILLM_CUDA="1")
    assert asked.returncode and "minillm._cpp.cuda is not built" in asked.stdout
    missing, _ = setup(tree, MINILLM_CUDA="1", PATH="/usr/bin", CUDA_HOME="/none")
    in_wheels = list(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/nvcc"))
    if not Path("/usr/local/cuda/bin/nvcc").exists() and not in_wheels:
        assert missing.returncode and "MINILLM_CUDA=1, but there is no nvcc" in missing.stdout


def test_every_source_belongs_to_a_part():
    """A new file needs no line in setup.py; none is forgotten."""
    done, _ = setup(ROOT, "--version", MINILLM_BUILD="all")
    assert done.returncode == 0


def test_what_takes_long_to_read_is_read_by_few():
    """pybind11 costs 5 s of CPU time a file, the headers of instructions half a second: a file that does not need them
    leaves them out, or an install compiles for minutes again."""
    readers = {header: {path.name for path in (ROOT / "csrc").rglob("*.*") if header in path.read_text()}
               for header in ("#include <pybind11/", "#include <immintrin.h>")}
    assert readers == {"#include <pybind11/": {"bindings.cpp", "device_array.cpp", "device_exchange.cpp", "dlpack.h"},
                       "#include <immintrin.h>": {"integer.h", "masks.h", "matmul_bf16.cpp", "minhash.cpp",
                                                  "stored_rows.h"}}
