"""Reports: tables hold what they promise and go between the README's markers."""
import json

import pytest
from benching import EMPTY, quick, run_json, tokenizer_row  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli
from benchmarks import report, suite


def test_tokenizer_tables_have_a_line_a_candidate(tmp_path):
    rows = [tokenizer_row("encode", "prose 1 thread", "cold", "minillm", 250),
            tokenizer_row("train", "8000 1 thread", "train", "a", 9),
            tokenizer_row("encode", "prose 1 thread", "warm", "minillm", 480),
            tokenizer_row("stream", "1 GB 1 thread", "stream", "a", 7),
            tokenizer_row("encode", "prose 1 thread", "cold", "a", 15)]
    (tmp_path / "results.json").write_text(json.dumps(EMPTY | {"rows": rows}))
    (tmp_path / "README.md").write_text("\n".join(["<!-- benchmarks -->", *report.TOKENIZER_MARKERS]))
    report.update_readme(tmp_path / "README.md", tmp_path / "results.json")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("<!-- benchmarks -->\n<!-- benchmarks tokenizer -->\n")
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


def test_readme_table_goes_between_the_markers(tmp_path, capsys, monkeypatch):
    _, document = run_json(tmp_path, "gelu")
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nthe rest\n")
    monkeypatch.setattr(suite, "README", readme)
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n<!-- benchmarks -->\n") and text.endswith("<!-- /benchmarks -->\nthe rest\n")
    assert "| `gelu` | forward |" in text and "old" not in text and document["machine"]["cpu"] in text
    assert cli.main(["--readme", str(tmp_path / "results.json")]) == 0 and readme.read_text() == text


@pytest.mark.parametrize("text", ["", "<!-- benchmarks -->", "<!-- /benchmarks --><!-- benchmarks -->"])
def test_readme_without_markers_is_left_alone(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "results.json").write_text(json.dumps(EMPTY))
    with pytest.raises(ValueError, match="<!-- /benchmarks -->, once each"):
        report.update_readme(tmp_path / "README.md", tmp_path / "results.json")
    assert (tmp_path / "README.md").read_text() == text
