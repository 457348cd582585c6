"""Web pages become their text; one that would cost minutes costs about a second, and the next one is read."""
import os
import time

import pytest

from minillm.data.sources import html
from minillm.data.sources.files import read_documents
from minillm.data.sources.report import Report, Unusable

pytest.importorskip("resiliparse")
PAGE = ("<html><head><meta charset='latin-1'><script>x()</script></head><body><nav>Home</nav><main><h1>Käse</h1>"
        "<p>Ein Satz über Käse.</p></main></body></html>").encode("latin-1")


def test_main_text_and_all_text(tmp_path):
    (tmp_path / "page.html").write_bytes(PAGE)
    ((_, main),), ((_, everything),) = read_documents(tmp_path), read_documents(tmp_path, all_text=True)
    assert "Ein Satz über Käse." in main and "x()" not in main and "Home" not in main
    assert "Ein Satz über Käse." in everything and "x()" not in everything and "Home" in everything


@pytest.mark.parametrize("hostile", [b"<div>" * 50_000 + b"text " * 100,
                                     b"<div " + b" ".join(b"a%d=1" % i for i in range(60_000)) + b">text"])
def test_a_page_that_costs_too_much_is_skipped(tmp_path, hostile):
    (tmp_path / "a.html").write_bytes(hostile)
    (tmp_path / "b.html").write_bytes(PAGE)
    report, start = Report(), os.times()
    assert len(list(read_documents(tmp_path, report))) == 1 and report.skipped == {"too costly to parse": 1}
    end = os.times()
    assert end.children_user + end.children_system - start.children_user - start.children_system < 4


def test_ordinary_pages_stay_far_below_the_limit():
    page = b"<div><p>some words <a href=x>link</a> and more of them</p></div>\n" * 30_000       # 2 MB
    start = time.process_time(), time.monotonic()
    assert html.html_text(page, all_text=True)
    assert time.monotonic() - start[1] < 60
    with pytest.raises(Unusable, match="without text"):
        html.html_text(b"<p></p>", all_text=True)


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    with pytest.raises(Unusable, match="minillm\\[data\\]"):
        html.html_text(PAGE)
