"""Built twice, by processes with other hash seeds, the book has the same bytes; an installed one says what it lacks."""
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import minillm

ROOT = Path(minillm.__file__).parents[1]
CONTENTS = """
part ops: Some ops
@residual @sum_squares
part appendices: Appendices
@answers @references @index
"""
BUILD = """
import sys
from pathlib import Path
from minillm.study.book import build
book = build.read_book(contents=sys.argv.pop(1))
build.write_html(book, Path(sys.argv[1]))
if sys.argv[2:]:
    build.write_pdf(book, sys.argv[2])
"""
TYPST = importlib.util.find_spec("typst") is not None


def build(folder, root=ROOT, seed="0", contents=CONTENTS):
    """{file: bytes} of a small book built by a process of its own."""
    folder.mkdir()
    pdf = [str(folder / "book.pdf")] if TYPST else []
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
    command = [sys.executable, "-c", BUILD, contents, str(folder), *pdf]
    subprocess.run(command, env=environment, check=True, timeout=200, cwd=root)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_twice(tmp_path):
    first, second = build(tmp_path / "a", seed="1"), build(tmp_path / "b", seed="2")
    assert first == second and {"index.html", "residual.html", "style.css"} <= set(first)
    assert ("book.pdf" in first) == TYPST


def test_from_an_installed_package(tmp_path):
    """Without csrc and benchmarks: the same chapters, which say what is not there."""
    shutil.copytree(ROOT / "minillm", tmp_path / "site" / "minillm",
                    ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    contents = CONTENTS.replace("@ref", "@kernels-cuda @ref")
    pages = build(tmp_path / "c", tmp_path / "site", contents=contents)
    assert b"Built in a checkout of the repository" in pages["kernels-cuda.html"]
    assert b"does not carry the committed measurements" in pages["residual.html"]
    assert b"residual_forward" in pages["residual.html"]
