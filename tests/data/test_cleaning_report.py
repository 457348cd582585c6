"""The cleaning report as a page: reasons with samples beside them, an index, bars, and no way in for a document."""
import re

import pytest
from pages import browser, check_in_browser, check_report  # noqa: F401  (browser is a fixture)

from minillm.data.cleaning.document import CleanOptions
from minillm.data.cleaning.pipeline import clean
from minillm.storage.atomic import write_jsonl

EVIL = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>"
PROSE = "The old mill stood by the river and the people of the village came to it with all that they have. " * 6


@pytest.fixture
def report(tmp_path):
    """The path of the page about five texts: two are kept, two are too short, one has few words of language."""
    texts = [PROSE, PROSE + "Mail to x@mill.example.", EVIL, "short", " ".join(map(str, range(100)))]
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{no JSON\n")
    clean([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", CleanOptions(families=("gopher",), processes=1))
    return tmp_path / "out.report.html"


def test_the_page(report):
    html = report.read_text(encoding="utf-8")
    found = check_report(html)
    assert {"dropped", "not-read", "masked", "rules", "scores", "score-words"} <= set(found.ids)
    assert "score-words" in found.anchors and "Kept 2 of 5 documents" in html
    row = r'<summary class="bar"><span class="name">(.*?)</span>.*?width:(.*?)%.*?</summary>(.*?)</details>'
    rows = {name: (share, inside) for name, share, inside in re.findall(row, html, re.DOTALL)}
    share, inside = rows["words below 50"]
    assert share == "40.00" and inside.count("<pre>") == 2 and "&lt;img src=x onerror=alert(1)&gt;" in inside
    assert rows["mean_<wbr>word_<wbr>length below 3"][0] == "20.00" and "in.jsonl:6" in rows["bad JSON"][1]


def test_bins_outside_the_bounds_stand_out(report):
    """The histogram of words: what is below 50 is in another colour, its bound is drawn."""
    figure = re.search(r'<figure id="score-words">.*?</figure>', report.read_text(encoding="utf-8"), re.DOTALL)[0]
    bins = [(kind, float(x)) for kind, x in re.findall(r'<rect class="(\w+)" x="([\d.]+)%"', figure)]
    bound, = (float(x) for x in re.findall(r'<line class="bound" x1="([\d.]+)%"', figure))
    assert {kind for kind, _ in bins} == {"out", "bin"}
    assert all((kind == "out") == (x < bound) for kind, x in bins)


def test_nothing_dropped_and_nothing_read(tmp_path):
    for name, texts in (("all", [PROSE]), ("none", ["x"])):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])
        clean([tmp_path / f"{name}.jsonl"], tmp_path / f"{name}.out.jsonl", CleanOptions(processes=1))
        check_report((tmp_path / f"{name}.out.report.html").read_text(encoding="utf-8"))


def test_in_the_browser(report, browser):  # noqa: F811
    check_in_browser(browser, report)
