"""The whole book: its code is that of the files, links lead somewhere, each op has its chapter, the PDF is a book."""
import re
import time
from html.parser import HTMLParser

import pytest

from minillm.ops.table import OPS
from minillm.study.book.blocks import Code, Exercise, Formula, Heading, Picture, Table, plain
from minillm.study.book.build import read_book, write_pdf
from minillm.study.book.contents import HERE
from minillm.study.book.listings import ROOT
from minillm.study.book.numbering import spans_in
from minillm.study.book.op_chapter import label_of
from minillm.study.book.results import newest
from minillm.study.book.to_html import pages_of

PROSE = {"micro", "language-models", "backpropagation", "transformer", "data", "tokenizer", "training", "post-training",
         "evaluation", "serving", "cpu-kernels", "cuda-kernels", "costs", "safety", "pitfalls"}
VOID = {"meta", "link", "br", "img", "path", "circle", "rect", "line", "wbr", "mspace"}


@pytest.fixture(scope="module")
def whole():
    start = time.process_time()
    return read_book(), time.process_time() - start


@pytest.fixture(scope="module")
def pages(whole):
    return pages_of(whole[0])


def test_lines_of_code_have_the_numbers_of_their_files(whole):
    numbered = [block for chapter in whole[0].chapters for block in chapter.blocks
                if isinstance(block, Code) and block.first]
    files = {}
    for block in numbered:
        path = plain(block.caption).split(",")[0]
        lines = files.setdefault(path, (ROOT / path).read_text(encoding="utf-8").splitlines())
        shown = block.text.split("\n")
        assert shown == lines[block.first - 1:block.first - 1 + len(shown)], path
        assert re.search(rf"lines? {block.first}\b", plain(block.caption))
    assert len(files) > 60 and sum(len(block.text.splitlines()) for block in numbered) > 6000


@pytest.mark.parametrize("op", OPS)
def test_the_chapter_of_an_op(whole, op):
    chapter = next(chapter for chapter in whole[0].chapters if chapter.name == label_of(op))
    kinds = [type(block) for block in chapter.blocks]
    titles = [plain(block.spans) for block in chapter.blocks if isinstance(block, Heading)]
    pair = OPS[op].kind == "pair"
    assert titles == ["Motivation", "At a glance", "Derivation", "The code", *["The check"] * pair,
                      "Kernels and their speed", "Exercises"]
    assert Formula in kinds and kinds.count(Exercise) >= 2 and kinds.count(Picture) == pair
    code = "\n".join(block.text for block in chapter.blocks if isinstance(block, Code))
    assert f"def {op}" in code and "SPEC = Spec(" in code
    speed = [block for block in chapter.blocks if isinstance(block, Table) and "-speed" in block.label]
    assert [plain(cell) for table in speed for cell in table.rows[0]].count("% of roofline") == len(speed)
    assert len(speed) == (newest(op) is not None)
    if pair:
        checked = next(block for block in chapter.blocks if isinstance(block, Table) and "-checked" in block.label)
        assert {plain(row[0]) for row in checked.rows[1:]} == set(OPS[op].differentiable)
        assert "FAIL" not in str(chapter.blocks)


def test_all_chapters_figures_and_sources_are_used(whole):
    prose = "".join(path.read_text(encoding="utf-8") for path in (HERE / "chapters").glob("*.md"))
    for room, function in (("figure", "def draw()"), ("table", "def rows()")):
        names = {path.stem for path in (HERE / f"{room}s").glob("*.py") if function in path.read_text(encoding="utf-8")}
        assert [name for name in names if not re.search(rf"\{{{room}:{name}\b", prose)] == []
    named = {path.stem for path in (HERE / "chapters").glob("*.md")}
    assert PROSE <= named <= {chapter.name for chapter in whole[0].chapters}
    spans = [span for chapter in whole[0].chapters for span in spans_in(chapter.blocks)]
    cited = {key for span in spans if span.kind == "cite" for key in span.value}
    seen = {span.value[0] for span in spans if span.kind == "see"}
    assert {key for key in whole[0].sources if key not in cited and f"source-{key}" not in seen} == set()


class Page(HTMLParser):
    """Its ids and links; complains of tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.title = [], [], [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag, (tag, self.getpos())


def test_every_link_leads_somewhere(pages):
    found = {name: Page(text) for name, text in pages.items() if name.endswith(".html")}
    count = 0
    for name, page in found.items():
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            if link.startswith("https://"):
                continue
            file, _, place = link.partition("#")
            assert file in pages or not file, (name, link)
            assert not place or place in found[file or name].ids, (name, link)
            count += 1
    assert count > 1000 and "<script" not in "".join(pages.values())


def test_nothing_of_this_machine_or_day(pages):
    text = "".join(pages.values())
    assert str(ROOT) not in text and time.strftime("%Y-%m-%d %H") not in text


def test_the_pdf(whole, tmp_path):
    pytest.importorskip("typst")
    book, reading = whole
    start = time.process_time()
    assert write_pdf(book, tmp_path / "book.pdf") >= 150
    assert reading + time.process_time() - start < 60
    assert (tmp_path / "book.pdf").read_bytes().startswith(b"%PDF-1.7")
