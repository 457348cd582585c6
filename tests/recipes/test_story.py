"""Every stage of `quickstart --full`, in small, and its report."""
import json
import os
import random
from dataclasses import replace

import pytest
from pages import check_report

from benchmarks import alignment
from minillm.__main__ import main
from minillm.evaluate import safety
from minillm.models.load import load
from minillm.recipes import story
from minillm.train import checkpoint


@pytest.fixture
def small(monkeypatch):
    words = "the and of to have with be that stone river cloud window paper silver engine garden letter morning".split()
    rng = random.Random(0)
    documents = [(f"page {i}", " ".join(rng.choices(words, k=60)) + ".") for i in range(80)]
    monkeypatch.setattr(story, "pydoc_corpus", lambda: documents)
    pages = [(f"help {name}", documents[name % 3][1] + " Related: more." * (name % 2)) for name in range(6)]
    monkeypatch.setattr(story, "help_pages", lambda: pages)
    red_team = safety.read_prompts()
    harmful, harmless = ([prompt for prompt in red_team if prompt["harmful"] == wanted] for wanted in (True, False))
    monkeypatch.setattr(safety, "read_prompts", lambda: harmful[:8] + harmless[:2])
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
            ("harmful stories, unseen words", 2), ("their harmless twins, unseen words", 2), ("red team: harmful", 8),
            ("red team: harmless", 2)]
        assert 0 <= stage["refused unseen"] <= stage["between"]["refused unseen"][1]
        assert len(stage["examples"]) == 4 and {change["task"] for change in stage["changes"]} >= {"bpb docs"}
    assert [request for request, _ in results["untrained"]["examples"]] == [
        request for request, _ in results["stages"][2]["examples"]]
    assert results["data"]["read"]["documents"] == 206 and results["speculation"]["texts equal"] is True
    assert {reason: size["documents"] for reason, size in results["data"]["duplicates"].items()} == {
        "exact duplicate": 3, "near-duplicate": 3, "only repeated lines": 0}
    assert len(results["stages"][2]["safety"]["changes"]) >= 4
    card = (tmp_path / "run" / "dpo" / "MODEL_CARD.md").read_text()
    for words in ("| harmful stories | 3 |", "| their harmless twins | 3 |", "refused on harmful prompts",
                  "| followed |",
                  "- preferences learned on", "- fine-tuned on", "- pretrained on Python's documentation"):
        assert words in card, words
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "From raw text" in report and "fine-tuned" in report and "3 exact duplicates" in report
    check_report(report)
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


def test_a_stage_that_is_killed_can_be_loaded(tmp_path, small, monkeypatch):
    """Each run directory has its tokenizer before the first step, and its model from the first validation on."""
    trained = []

    def killed(model, data, config, run, *rest, **kwargs):
        assert checkpoint.ORIGIN in map(str, os.listdir(run)) or run.name == "draft"
        train(model, data, replace(config, steps=1, eval_every=1), run, *rest, **kwargs)
        assert load(run)[1].vocab_size <= load(run)[0].config.vocab_size
        trained.append(run.name)
        return {"step": config.steps}
    train = story.train
    monkeypatch.setattr(story, "train", killed)
    story.story(tmp_path / "run", say=lambda text: None)
    assert trained == ["pretrain", "sft", "dpo", "draft"]


def test_ctrl_c_ends_the_whole(tmp_path, small, monkeypatch):
    monkeypatch.setattr(story, "train", lambda *rest, **kwargs: {"step": 2})
    with pytest.raises(KeyboardInterrupt):
        story.story(tmp_path / "run", say=lambda text: None)
