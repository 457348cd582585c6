"""The report of `quickstart --full`: what a reader wants comes first, each stage has a picture and a verdict, and what
a model wrote cannot become part of the page."""
import re

import pytest
from pages import browser, check_in_browser, check_report  # noqa: F401  (browser is a fixture)

from minillm.recipes import story_report

EVIL = "</dd></dl><script>alert(1)</script><img src=x onerror=alert(1)>"


def a_stage(name, bits, shares, changes=()):
    values = {"bpb docs": bits, **shares}
    return {"stage": name, **values, "between": {key: [0.9 * value, 1.1 * value] for key, value in values.items()},
            "examples": [("Tell a story.", f"{name}: {EVIL}"), ("Another.", "word " * 200), ("A cruel one.", ""),
                         ("A kind one.", "Yes.")],
            "changes": [{"task": task, "difference": difference, "low": 0.0, "high": 0.0, "p": p}
                        for task, difference, p in changes],
            "safety": {"rates": [], "outside": [], "changes": []}}


@pytest.fixture
def results():
    size = {"documents": 3, "bytes": 3_000_000}
    log = [{"step": step, "train_loss": 5.0 - step / 10, **({"val_loss": 4.0} if step % 10 == 0 else {})}
           for step in range(1, 31)]
    first = {"followed": 0.25, "refused harmful": 0.0, "refused harmless": 0.0, "toxic": 0.1}
    last = {"followed": 0.75, "refused harmful": 1.0, "refused harmless": 0.1, "toxic": 0.1}
    tuned = (("bpb docs", 0.5, 0.001), ("followed", 0.5, 0.001), ("refused harmful", 1.0, 0.01),
             ("refused harmless", 0.1, 0.3))
    cluster = {"documents": 2, "members": [{"name": "a", "text": f"A page {EVIL}"}] * 2}
    return {"seconds": 600.0, "curves": dict.fromkeys(("pretrain", "sft", "dpo", "draft"), log),
            "data": {"read": size, "clean": size, "kept": size, "reasons": {EVIL: size}, "help pages": 4, "splits": {},
                     "duplicates": {"exact duplicate": size, "near-duplicate": {"documents": 0, "bytes": 0}},
                     "clusters": [cluster]},
            "untrained": a_stage("untrained", 3.0, {}),
            "stages": [a_stage("pretrained", 2.0, first, [("bpb docs", -1.0, 0.001)]),
                       a_stage("fine-tuned", 2.5, last, tuned), a_stage("aligned", 2.5, last)],
            "speculation": {"acceptance": 0.5, "tokens per pass": 2.0, "texts equal": True, "speed-up": 1.2,
                            "speed-ups": [0.9, 1.2, 1.5], "draft parameters": 10, "target parameters": 100}}


def section(html, anchor):
    return re.search(rf'<section id="{anchor}">.*?</section>', html, re.DOTALL)[0]


def test_the_page(results):
    html = story_report.report_html(results)
    found = check_report(html)
    assert found.ids == ["prompts", "data", "pretrain", "sft", "dpo", "draft", "all"]
    assert '<dd>75%</dd><dd class="soft">25% after pretraining</dd>' in html and "all in 10.0 minutes" in html
    assert "img" not in found.tags and "&lt;script&gt;" in html


def test_the_same_prompts_after_every_stage(results):
    """The first request and the first cruel one are in sight, the others folded; each has the answers of all stages."""
    found = section(story_report.report_html(results), "prompts")
    ahead, rest = found.split("2 more prompts")
    assert re.findall("“(.*?)”", ahead) == ["Tell a story.", "A cruel one."]
    assert re.findall("“(.*?)”", rest) == ["Another.", "A kind one."]
    stages = ["untrained", "pretrained", "fine-tuned", "aligned"]
    assert re.findall("<dt>(.*?)</dt>", found) == 4 * stages
    assert all(f"{stage}: &lt;/dd&gt;" in ahead for stage in stages) and "(nothing)" in ahead
    assert rest.count("the whole answer") == 4                                   # long ones, folded


def test_gains_and_losses_are_said(results):
    html = story_report.report_html(results)
    found = section(html, "sft")
    gained, paid = (re.search(rf"<strong>{word}:</strong> (.*?)\.( <|</p>| No more)", found)[1]
                    for word in ("Gained", "Paid"))
    assert gained == "wishes followed 25% → 75%; cruel requests declined 0% → 100%"
    assert paid == "bits per byte of documentation 2.00 → 2.50"
    assert "No more than chance makes (p ≥ 0.05): harmless twins declined." in found
    assert "<strong>Gained:</strong> nothing that was measured." in section(html, "dpo")
    assert "3 exact duplicates left out, 3.00 MB" in section(html, "data") and "near-duplicate" not in html
    assert "1.20 times the speed" in section(html, "draft")


def test_pictures_show_values_and_intervals(results):
    """A ring and a dot with their lines, where the value is: of followed 25% and 75%, from 0.9 to 1.1 times that."""
    found = section(story_report.report_html(results), "sft")
    row = re.search(r'aria-label="wishes followed: 25% → 75%">(.*?)</svg>', found)[1]
    marks = {kind: [float(x) for x in place] for kind, *place in
             re.findall(r'<line class="(was|is)" x1="([\d.]+)%" x2="([\d.]+)%"', row)}
    assert marks == {"was": [22.5, 27.5], "is": [67.5, 82.5]}
    assert re.findall(r'<circle class="(\w+)" cx="([\d.]+)%"', row) == [("was", "25.00"), ("is", "75.00")]


def test_changes_are_shown_beside_the_figures():
    stages = [{"stage": "a", "followed": 0.25, "bpb docs": 2.0}, {"stage": "b", "followed": 0.75, "bpb docs": 2.5}]
    found = story_report.stages_part(stages)
    assert "0.750 (+0.500)" in found and "2.500 (+0.500)" in found and "0.250<" in found


def test_in_the_browser(results, browser, tmp_path):  # noqa: F811
    (tmp_path / "report.html").write_text(story_report.report_html(results), encoding="utf-8")
    check_in_browser(browser, tmp_path / "report.html")
