"""Reports: tables hold what they promise and go between the README's markers."""
import json

import pytest
from benching import EMPTY, quick, run_json, tokenizer_row  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import report


def test_tokenizer_tables_have_a_line_a_candidate(tmp_path):
    rows = [tokenizer_row("encode", "prose 1 thread", "cold", "minillm", 250),
            tokenizer_row("train", "8000 1 thread", "train", "a", 9),
            tokenizer_row("encode", "prose 1 thread", "warm", "minillm", 480),
            tokenizer_row("stream", "1 GB 1 thread", "stream", "a", 7),
            tokenizer_row("encode", "prose 1 thread", "cold", "a", 15)]
    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows}))
    (tmp_path / "README.md").write_text("<!-- benchmarks -->\n<!-- tokenizer -->\n<!-- /tokenizer -->\n")
    report.update_readmes(tmp_path / "results.json", tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("<!-- benchmarks -->\n<!-- tokenizer -->\n")
    for line in ("|  | prose 1 thread cold | prose 1 thread warm |", "| minillm | 250 | 480 |", "| a | 15 | - |",
                 "|  | 8k tokens |", "| a | 1.50 (99) |",
                 "A stream of 1 GB through `encode_iterable`, an id at a time: 7 MB/s"):
        assert line in text


def test_attention_lengths_and_ladders_have_their_tables(tmp_path):
    code, document = run_json(tmp_path, "attention_lengths", "--lengths", "64")
    assert code == 0 and {row["dims"] for row in document["rows"]} == {"B=1 T=64 C=256 NH=4"}
    assert all(row["memory_mb"] >= 0 for row in document["rows"])
    _, ladder = run_json(tmp_path, "linear", "--ladder")
    text = report.markdown({**document, "rows": document["rows"] + ladder["rows"]})
    assert "| 64 |" in text and "What each idea buys, `linear`" in text and "| `cpu/1_naive` |" in text


@pytest.fixture
def readmes(tmp_path, monkeypatch):
    """Two READMEs as the tables expect them; the last arguments of update_readmes are theirs."""
    paths = tmp_path / "TABLES.md", tmp_path / "README.md"
    for path, name in zip(paths, ("benchmarks", "headlines")):
        path.write_text(f"# Title\n<!-- {name} -->\nold\n<!-- /{name} -->\nthe rest\n")
    monkeypatch.setattr(report.update_readmes, "__defaults__", paths)
    return paths


def test_tables_go_between_the_markers(tmp_path, readmes):
    _, document = run_json(tmp_path, "gelu")
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0
    text, front = (path.read_text() for path in readmes)
    assert text.startswith("# Title\n<!-- benchmarks -->\n") and text.endswith("<!-- /benchmarks -->\nthe rest\n")
    assert "| `gelu` | forward |" in text and "old" not in text and document["machine"]["cpu"] in text
    assert "old" in front                                                   # no whole model was measured
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0 and readmes[0].read_text() == text


def test_headlines_are_ours_against_the_fastest_other(tmp_path, readmes):
    def row(candidate, ms):
        return {"op": "step", "dims": "tiny B=1 T=8", "dtype": "float32", "direction": "step", "candidate": candidate,
                "median_ms": ms, "low_ms": ms, "high_ms": ms, "x_minillm": 10 / ms}
    rows = [row("minillm", 10.0), row("torch eager fp32", 30.0), row("torch eager fp32 tuned", 15.0),
            row("torch eager bf16", 8.0)]
    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows}))
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0
    text = readmes[1].read_text()
    assert "| step, tiny B=1 T=8 | float32 | 10.000 | - | torch eager fp32 tuned | 15.000 | - | 1.50x |" in text
    assert "bfloat16" not in text


@pytest.mark.parametrize("text", ["", "<!-- benchmarks -->", "<!-- /benchmarks --><!-- benchmarks -->"])
def test_a_readme_without_markers_is_left_alone(tmp_path, readmes, text):
    readmes[0].write_text(text)
    (tmp_path / "results.json").write_text(json.dumps(EMPTY))
    with pytest.raises(ValueError, match="<!-- /benchmarks -->, once each"):
        report.update_readmes(tmp_path / "results.json")
    assert readmes[0].read_text() == text


def test_the_newest_results_are_found_among_files_of_other_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no results yet"):
        report.newest()
    for name, document in (("2026-01-01-all", EMPTY), ("2026-01-01-step", EMPTY),
                           ("2026-02-01-gelu", EMPTY | {"date": "2026-02-01"}),            # of one op: no table of all
                           ("2027-01-01-other", {"date": "2027-01-01"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    assert report.newest().stem == "2026-01-01-all" and report.update_readmes.__defaults__ == (report.TABLES,
                                                                                               report.FRONT)
