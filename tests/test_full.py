"""The whole way in small: instructions that a program can judge, and every stage of `quickstart --full`."""
import json
import random

import pytest

from minillm import full, full_report
from minillm.__main__ import main
from minillm.data import instructions
from minillm.data.stories import log2_probability


def test_answers_do_what_is_asked():
    found = instructions.records(40, 0)
    for record in found:
        question, answer = (message["content"] for message in record["messages"])
        assert log2_probability(answer) < 0                                  # a story of the grammar
        assert instructions.followed(answer, record["asked"]) == 1
        assert all(value in question for value in record["asked"].values())
    assert instructions.followed(found[0]["messages"][1]["content"], found[1]["asked"]) < 1
    assert instructions.records(40, 0) == found != instructions.records(40, 1)


def test_pairs_differ_in_their_end_alone():
    for pair in instructions.preferences(40, 0):
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert instructions.ends_well(chosen) and not instructions.ends_well(rejected)
        assert log2_probability(chosen) < 0 and log2_probability(rejected) < 0
        same = next(i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b)
        assert chosen[:same].endswith("\" said the " + chosen[:same].rpartition("said the ")[2]) or same > 300
    assert not instructions.ends_well("It never ends and never")


@pytest.fixture
def small(monkeypatch):
    words = "the and of to have with be that stone river cloud window paper silver engine garden letter morning".split()
    rng = random.Random(0)
    documents = [(f"page {i}", " ".join(rng.choices(words, k=60)) + ".") for i in range(80)]
    monkeypatch.setattr(full, "pydoc_corpus", lambda: documents)
    for name, value in (("STORIES", 120), ("CHATS", 30), ("PAIRS", 24), ("VOCAB", 320), ("REQUESTS", 2), ("DOCUMENTS", 3), ("DELICATE", 6),
                        ("ANSWER_TOKENS", 12),
                        ("MODEL", {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 512}),
                        ("DRAFT", {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 512})):
        monkeypatch.setattr(full, name, value)
    monkeypatch.setattr(full, "planned", lambda model, data, config, minutes, steps: full.replace(config, steps=8, eval_every=4))
    monkeypatch.setattr(full, "steps_for", lambda *rest: 3)


def test_every_stage_of_the_story(tmp_path, small, capsys):
    assert main(["quickstart", "--full", "--out", str(tmp_path / "run"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in results["stages"]] == ["pretrained", "fine-tuned", "aligned"]
    for stage in results["stages"]:
        assert 0 <= stage["followed"] <= 1 and stage["bpb docs"] > 0 and stage["bpb stories"] > 0
    assert results["data"]["read"]["documents"] == 200 and results["speculation"]["texts equal"] is True
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "From raw text" in report and "fine-tuned" in report and "<script" not in report and "http" not in report
    assert json.loads((tmp_path / "run" / "results.json").read_text())["curves"]["dpo"]
    assert main(["generate", str(tmp_path / "run" / "dpo"), "-p", "The", "-n", "3"]) == 0


def test_changes_are_shown_beside_the_figures():
    stages = [{"stage": "a", "followed": 0.25, "bpb docs": 2.0}, {"stage": "b", "followed": 0.75, "bpb docs": 2.5}]
    found = full_report.stages_part(stages)
    assert "0.750 (+0.500)" in found and "2.500 (+0.500)" in found and "0.250<" in found
