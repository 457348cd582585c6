"""`minillm tokenizer compare | inspect | encode | decode`, and what they print."""
import io
import json
import pydoc_data.topics

import pytest

from minillm.__main__ import main
from minillm.data.sources.pydocs import english_and_python
from minillm.tokenizer import Tokenizer, compare, show

TEXT = "the cat sat on the mat. " * 40 + "中文中文 123\n"

ENGLISH = pydoc_data.topics.topics["while"] + pydoc_data.topics.topics["class"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizers")
    for name, size in (("small", 260), ("large", 300)):
        Tokenizer.train([TEXT, ENGLISH], size).save(directory / name)
    (directory / "prose.txt").write_text(TEXT, encoding="utf-8")
    (directory / "code.py").write_text("def the(cat):\n    return cat + 1\n", encoding="utf-8")
    (directory / "more.md").write_text("всё о котах и кошках, и ничего больше", encoding="utf-8")
    return directory


def run(capsys, *args):
    assert main(["tokenizer", *map(str, args)]) == 0
    return capsys.readouterr().out


def test_train(saved, capsys, tmp_path):
    prose = saved / "prose.txt"
    run(capsys, "train", "--data", prose, "--vocab-size", 270, "--out", tmp_path / "a",
        "--ties", "bytes", "--special", "<a>",
        "--special", "<b>")
    tok = Tokenizer.from_pretrained(tmp_path / "a")
    assert tok.special_tokens == {"<a>": 268, "<b>": 269}
    assert tok.merges == Tokenizer.train(prose.read_text(encoding="utf-8"), 268, [], ties="bytes").merges
    assert main(["tokenizer", "train", "--data", str(prose), "--out", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    most = int(error.partition("at most ")[2].split()[0])
    run(capsys, "train", "--data", prose, "--vocab-size", most, "--out", tmp_path / "b")
    run(capsys, "train", "--data", prose, "--out", tmp_path / "c", "--stop-early")
    assert {Tokenizer.from_pretrained(tmp_path / name).vocab_size for name in "bc"} == {most}


def test_encode_and_decode(saved, capsys, monkeypatch):
    ids = run(capsys, "encode", saved / "large", TEXT + "<|endoftext|>").split()
    assert list(map(int, ids)) == Tokenizer.from_pretrained(saved / "large").encode_ordinary(TEXT + "<|endoftext|>")
    assert run(capsys, "decode", saved / "large", *ids) == TEXT + "<|endoftext|>"
    monkeypatch.setattr("sys.stdin", io.StringIO(" ".join(ids)))
    assert run(capsys, "decode", saved / "large") == TEXT + "<|endoftext|>"
    assert run(capsys, "encode", "--special", saved / "large", "<|endoftext|>").split() == ["299"]
    from_file = run(capsys, "encode", saved / "large", "--file", saved / "prose.txt")
    assert from_file == run(capsys, "encode", saved / "large", TEXT)
    assert main(["tokenizer", "decode", str(saved / "large"), "x"]) == 1
    assert main(["tokenizer", "decode", str(saved / "large"), "300"]) == 1


def test_inspect_shows_every_token_once(saved, capsys):
    out = run(capsys, "inspect", saved / "large", "the cat\n中\x00", "--ids")
    tok = Tokenizer.from_pretrained(saved / "large")
    assert all(f"({id})" in out for id in tok.encode("the cat\n中\x00"))
    assert "\\x00" in out and "tokens, 12 bytes" in out
    assert "\x1b[" not in out and "\x1b[" in run(capsys, "inspect", saved / "large", "the", "--colour")
    shown = show.inspect(tok, "the mat", colour=False).split("\n")[0]
    assert shown.replace("|", "") == "the mat" and shown.count("|") == len(tok.encode("the mat")) + 1


def test_compare_counts_what_it_says(saved, capsys):
    texts = [saved / "prose.txt", saved / "code.py", saved / "more.md"]
    rows = json.loads(run(capsys, "compare", saved / "small", saved / "large", "--text", *texts,
                          "--n-embd", 10, "--n-layer", 2,
                          "--json"))
    tok = Tokenizer.from_pretrained(saved / "large")
    prose = (saved / "prose.txt").read_text(encoding="utf-8")
    assert list(rows[1]["bytes_per_token"]) == ["prose", "code", "other scripts", "all"]
    assert rows[1]["bytes_per_token"]["prose"] == pytest.approx(len(prose.encode()) / len(tok.encode(prose)))
    used = {id for path in texts for id in tok.encode(path.read_text(encoding="utf-8"))}
    assert rows[1]["vocabulary_used"] == pytest.approx(len(used) / 300)
    assert rows[1]["embedding_parameters"] == 3000
    assert rows[1]["flops_per_byte"] == pytest.approx(2 * (12 * 2 * 100 + 3000) / rows[1]["bytes_per_token"]["all"])
    assert rows[1]["bytes_per_token"]["prose"] > rows[0]["bytes_per_token"]["prose"]


def test_compare_prints_a_table_and_draws(saved, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    out = run(capsys, "compare", saved / "small", saved / "large", "--text",
              saved / "prose.txt", "--plot", tmp_path / "a.png")
    assert "bytes per token, prose" in out and "260" in out and "300" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_kinds_and_examples():
    pairs = ("a.py", "x"), ("a.txt", "naïve café"), ("a.txt", "кот"), ("a", "123")
    assert [compare.kind_of(*pair) for pair in pairs] == ["code", "prose", "other scripts", "prose"]
    kinds = {compare.kind_of(name, text) for name, text in english_and_python()}
    assert kinds == {"prose", "code"}


def test_errors_are_one_line(saved, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    for args in (["compare", saved / "small", saved / "none"], ["inspect", tmp_path / "empty", "x"],
                 ["compare", saved / "small", saved / "large", "--text", tmp_path / "empty"]):
        assert main(["tokenizer", *map(str, args)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("minillm tokenizer: ") and error.count("\n") == 1
