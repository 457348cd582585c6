"""`minillm book`: HTML without typst, the PDF with it, and one clear error where it is missing."""
import sys

import pytest

from minillm.__main__ import main
from minillm.study.book import build
from minillm.study.book.results import Measured

CONTENTS = "part ops: Ops\n@residual\npart appendices: Appendices\n@answers @references @index\n"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    real = build.read_book
    monkeypatch.setattr(build, "read_book", lambda live=None, progress=None: real(live, progress, CONTENTS))


def test_html_needs_no_typst(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typst", None)
    assert main(["book", "--html", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made" / "residual.html").exists() and "4 chapters" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_missing_typst_is_told_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typst", None)
    monkeypatch.setattr(build, "read_book", lambda *_: pytest.fail("worked before it said so"))
    assert main(["book", "-o", str(tmp_path / "book.pdf"), "--html", str(tmp_path / "made")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'minillm[book]'" in error and not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path, monkeypatch, capsys):
    pytest.importorskip("typst")
    monkeypatch.setattr(build, "read_book", lambda *_: pytest.fail("worked before it said so"))
    assert main(["book", "-o", str(tmp_path / "none" / "book.pdf")]) == 1
    assert "out must be a file in a folder that exists" in capsys.readouterr().err


def test_the_pdf(tmp_path, monkeypatch):
    pytest.importorskip("typst")
    monkeypatch.chdir(tmp_path)
    assert main(["book"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["minillm.pdf"]


def test_live_figures_stand_in_the_tables(tmp_path, monkeypatch):
    row = {"op": "residual", "candidate": "cpu", "direction": "forward", "dims": "B=1", "median_ms": 12.345,
           "gflops": 1.0, "gbs": 2.0, "peak_percent": 77.0, "bound": "memory"}
    machine = {"cpu": "a new machine", "threads": 2, "minillm_kernels": "avx2", "numpy": "2"}
    monkeypatch.setattr(build, "measure", lambda progress: {"residual": Measured("2030-01-02", machine, {}, [row])})
    assert main(["book", "--live", "--html", str(tmp_path)]) == 0
    text = (tmp_path / "residual.html").read_text()
    assert "12.345" in text and "a new machine" in text and ">77<" in text
