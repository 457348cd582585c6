"""`minillm distill`: a draft for a target that is there, or both in one go, and what they bring."""
import json
import math

import pytest

from minillm.__main__ import main
from minillm.config import GPTConfig
from minillm.models.gpt2 import GPT


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A small trained model, by the command that users take."""
    folder = tmp_path_factory.mktemp("distill")
    for i in range(12):
        (folder / f"note{i}.txt").write_text(f"Note {i}: the quick brown fox jumps over {i} lazy dogs.\n" * 8)
    settings = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "steps": 6, "batch_size": 2, "eval_every": 3}
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    assert main(["train", "--data", str(folder), "--out", str(folder / "run"), "--vocab-size", "300", *changes]) == 0
    return folder / "run"


def test_distill_makes_a_draft_and_reports(target, tmp_path, capsys):
    arguments = ["distill", target, "--out", tmp_path / "draft", "--steps", 4, "--layers", 1, "--width", 8, "--json"]
    assert main(list(map(str, arguments))) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert results["draft"]["steps"] == 4 and results["draft"]["parameters"] < 5000
    assert [(row["draft"], row["temperature"]) for row in results["speculation"]] == [
        ("draft", 0.0), ("lookup", 0.0), ("draft", 0.8), ("lookup", 0.8)]
    for row in results["speculation"]:
        assert 0 <= row["acceptance"] <= 1 <= row["tokens_per_pass"] <= 5 and row["speedup"] > 0
        assert ("theory" in row) == (row["draft"] == "draft")
    assert "in theory" in said.err
    assert main(["generate", str(target), "--draft", str(tmp_path / "draft"), "-n", "5"]) == 0
    assert main(["card", str(tmp_path / "draft")]) == 0                     # tells of whom and of what it learned
    card = (tmp_path / "draft" / "MODEL_CARD.md").read_text()
    splits = json.loads((target / "data" / "shards.json").read_text())["splits"]
    documents = {name: split["documents"] for name, split in splits.items()}
    assert (f"- distilled on {target / 'data'}: {documents['train']} records, {documents['val']} more held out, "
            f"taught by {target}\n- train: {documents['train']} documents") in card


def test_distill_on_other_text_and_without_any(target, tmp_path, capsys):
    text = tmp_path / "text.md"
    text.write_text("Another text about foxes and dogs, lazy and quick. " * 40)
    arguments = ["distill", target, "--out", tmp_path / "draft", "--steps", 2, "--width", 8, "--data", text]
    assert main(list(map(str, arguments))) == 0
    origin = json.loads((tmp_path / "draft" / "origin.json").read_text())
    assert (origin["how"], origin["base"], origin["data"]) == ("distilled", str(target), str(text))
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "bare" / name).write_bytes((target / name).read_bytes())
    assert main(["distill", str(tmp_path / "bare"), "--out", str(tmp_path / "other")]) == 1
    assert "give some with --data" in capsys.readouterr().err


def test_the_recipe_trains_both(tmp_path, capsys, monkeypatch):
    from minillm.recipes import draft_pair as pair
    from minillm.recipes import quickstart
    monkeypatch.setattr(quickstart, "STORIES", 150)
    monkeypatch.setattr(pair, "TARGET", {"n_layer": 1, "n_head": 1, "n_embd": 16})
    monkeypatch.setattr(pair, "BLOCK", {"stories": 32})
    assert main(["distill", "--out", str(tmp_path), "--steps", "3", "--layers", "1", "--width", "8", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["target"]["steps"] == results["draft"]["steps"] == 3 and len(results["speculation"]) == 4
    assert (tmp_path / "target" / "model.safetensors").exists() and (tmp_path / "draft" / "tokenizer.json").exists()
    draft = GPT.from_pretrained(tmp_path / "draft").config                     # the shape that was asked for
    assert (draft.n_layer, draft.n_embd) == (1, 8)


def test_the_recipes_target_has_30m_parameters():
    from minillm.models.params import gpt_shapes
    from minillm.recipes.draft_pair import BLOCK, TARGET
    from minillm.recipes.quickstart import VOCAB
    for corpus, block in BLOCK.items():
        shapes = gpt_shapes(GPTConfig(vocab_size=VOCAB[corpus], block_size=block, **TARGET))
        assert sum(math.prod(shape) for shape in shapes.values()) >= 30e6


@pytest.mark.parametrize("arguments, words", [
    (["--minutes", "0"], "--minutes"), (["--steps", "-1"], "--steps"), (["--layers", "0"], "--layers"),
    (["--temperature", "0"], "temperature"), (["--weight", "2"], "weight"), (["--draft-tokens", "0"], "--draft-tokens"),
    (["--corpus", "docs"], "--corpus is for a pair"),
], ids=lambda value: value[0] if isinstance(value, list) else None)
def test_mistakes_get_one_line(target, tmp_path, capsys, arguments, words):
    assert main(["distill", str(target), "--out", str(tmp_path), "--steps", "1", *arguments]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]
