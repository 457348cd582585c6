"""Every stage of `quickstart --full`, in small, and its report."""
import json
import random

import pytest

from benchmarks import alignment
from minillm.__main__ import main
from minillm.recipes import story, story_report


@pytest.fixture
def small(monkeypatch):
    words = "the and of to have with be that stone river cloud window paper silver engine garden letter morning".split()
    rng = random.Random(0)
    documents = [(f"page {i}", " ".join(rng.choices(words, k=60)) + ".") for i in range(80)]
    monkeypatch.setattr(story, "pydoc_corpus", lambda: documents)
    for name, value in (("STORIES", 120), ("CHATS", 30), ("PAIRS", 24), ("VOCAB", 320), ("REQUESTS", 2),
                        ("DOCUMENTS", 3), ("DELICATE", 6), ("UNSEEN", 4), ("ANSWER_TOKENS", 12),
                        ("MODEL", {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 512}),
                        ("DRAFT", {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 512})):
        monkeypatch.setattr(story, name, value)
    monkeypatch.setattr(story, "planned", lambda model, data, config, *_: story.replace(config, steps=8, eval_every=4))
    monkeypatch.setattr(story, "steps_for", lambda *rest: 3)


def test_every_stage_of_the_story(tmp_path, small, capsys):
    assert main(["quickstart", "--full", "--out", str(tmp_path / "run"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in results["stages"]] == ["pretrained", "fine-tuned", "aligned"]
    for stage in results["stages"]:
        assert 0 <= stage["followed"] <= 1 and stage["bpb docs"] > 0 and stage["bpb stories"] > 0
        assert 0 <= stage["refused harmless"] <= stage["between"]["refused harmless"][1]
        assert [(row["category"], row["prompts"]) for row in stage["safety"]["outside"]] == [
            ("harmful stories, unseen words", 2), ("their harmless twins, unseen words", 2), ("red team: harmful", 40),
            ("red team: harmless", 10)]
        assert 0 <= stage["refused unseen"] <= stage["between"]["refused unseen"][1]
    assert results["data"]["read"]["documents"] == 200 and results["speculation"]["texts equal"] is True
    assert len(results["stages"][2]["safety"]["changes"]) >= 4
    card = (tmp_path / "run" / "dpo" / "MODEL_CARD.md").read_text()
    for words in ("| harmful stories | 3 |", "| their harmless twins | 3 |", "refused on harmful prompts",
                  "| followed |",
                  "- preferences learned on", "- fine-tuned on", "- pretrained on Python's documentation"):
        assert words in card, words
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "From raw text" in report and "fine-tuned" in report and "<script" not in report and "http" not in report
    assert json.loads((tmp_path / "run" / "results.json").read_text())["curves"]["dpo"]
    assert main(["generate", str(tmp_path / "run" / "dpo"), "-p", "The", "-n", "3"]) == 0
    (tmp_path / "again").mkdir()
    found = alignment.choose(tmp_path / "run", tmp_path / "again", 1.0, 5.0, [(0.1, 1e-3, 0.0), (0.5, 1e-2, 1.0),
                                                                                 (0.1, 1e-3, 0.0)])
    assert found["development"][0] == found["development"][2]               # each from the same fine-tuned model
    scores = [row["score"] for row in found["development"]]
    best = found["development"][scores.index(max(scores))]
    assert found["chosen"] == (best["beta"], best["lr"], best["nll_weight"]) and scores[0] != scores[1]
    assert set(found["test"]) == {"fine-tuned", "aligned"}
    assert found["test"]["aligned"]["bpb stories"] == best["bpb stories"]           # the model that was chosen


def test_changes_are_shown_beside_the_figures():
    stages = [{"stage": "a", "followed": 0.25, "bpb docs": 2.0}, {"stage": "b", "followed": 0.75, "bpb docs": 2.5}]
    found = story_report.stages_part(stages)
    assert "0.750 (+0.500)" in found and "2.500 (+0.500)" in found and "0.250<" in found
