"""`minillm train --hours`: what is chosen, that it ends in time, and that a stopped run goes on as it was begun."""
import json
import math
import threading
from types import SimpleNamespace

import pytest
from ranks import on_ranks

from minillm.__main__ import main
from minillm.data.shards.format import open_shards
from minillm.data.shards.prepare import prepare
from minillm.models.load import load_model
from minillm.recipes import in_hours
from minillm.train.checkpoint import load_training

TEXT = "The quick brown fox jumps over the lazy dog, and then it jumps back over it. " * 200


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run(*options)` trains for half a second or so on a small text; (exit code, results, what was said)."""
    monkeypatch.setattr(in_hours, "SIZES", ((1, 16, 1), (1, 32, 2), (2, 64, 2)))
    monkeypatch.setitem(in_hours.MODEL, "block_size", 16)
    (tmp_path / "text.txt").write_text(TEXT)

    def with_options(*options):
        code = main(["train", "--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), "--json",
                     "--vocab-size", "280", "--hours", "0.0002", *options])
        said = capsys.readouterr()
        return code, json.loads(said.out or "null"), said.err
    with_options.out = tmp_path / "run"
    return with_options


def test_a_run_ends_with_its_decay(run):
    code, results, _ = run()
    state = load_training(run.out / "last")[2]
    begin, end = state["decay"]
    assert code == 0 and begin < results["steps"] <= end < in_hours.MOST    # before it where the machine slowed down
    assert state["settings"]["optimizer"] == "muon" and load_model(run.out).config.family == "qwen3"


def test_more_hours_choose_a_larger_model_until_the_text_is_known(run, monkeypatch):
    monkeypatch.setattr(in_hours, "step_seconds", lambda c, t, *ranks: 1e-4 * c.n_embd)

    def widths(tokens):
        shards = SimpleNamespace(train=SimpleNamespace(tokens=tokens), vocab_size=280)
        return [in_hours.suggested(shards, hours, {}, {})[0].n_embd for hours in (1e-4, 0.003, 1.0)]
    assert widths(10 ** 6) == [16, 32, 64]
    assert widths(2000) == [32, 32, 32], "a text that is read again and again bears a larger model, but not any"
    assert widths(200) == [16, 16, 16]


def test_a_short_text_ends_the_training_before_it_is_known_by_heart(run, monkeypatch):
    code, results, said = run("--hours", "1")
    state = load_training(run.out / "last")[2]
    tokens = open_shards(run.out / "data").train.tokens
    last = math.ceil(in_hours.PASSES * tokens / (8 * 16))
    assert code == 0 and results["steps"] == last and f"{tokens:,} tokens are few for 1 hours" in said
    settings = state["settings"]
    assert settings["weight_decay"] == pytest.approx(in_hours.PULL / settings["lr"], rel=0.05)
    assert settings["decay"] == in_hours.DECAY
    monkeypatch.setattr(in_hours, "step_seconds", lambda *sizes: 1e-6)
    shards = SimpleNamespace(train=SimpleNamespace(tokens=tokens), vocab_size=280)

    def chosen(train):
        return in_hours.suggested(shards, 1.0, {}, train)
    monkeypatch.setattr(in_hours, "PER_TOKEN", 10 ** 6)
    assert chosen({})[0].n_embd == 64, "time is no limit, nor is the text"
    monkeypatch.setattr(in_hours, "PER_TOKEN", 0)
    assert chosen({})[0].n_embd == 16
    assert (chosen({"steps": 7})[1].steps, chosen({"weight_decay": 0.3})[1].weight_decay) == (7, 0.3)


def test_ranks_choose_together_what_the_slowest_can_do(run, monkeypatch):
    """Rank 1 is slow: too slow to measure, and its FLOPs say that only the smallest size can be trained."""
    _, shards = prepare(lambda: [("text", TEXT)], run.out, vocab_size=280)
    slow = {}
    monkeypatch.setattr(in_hours, "worth", lambda tokens, unique: tokens)
    monkeypatch.setattr(in_hours, "flops_per_second", lambda c, t: slow.get(threading.get_ident(), 1e12))

    def chosen(speed, train):
        def work(world):
            slow[threading.get_ident()] = speed if world.rank else 1e12
            return in_hours.suggested(shards, 1.0, {}, train, world)
        one, *others = on_ranks(3, work)
        assert others == [one] * 2
        return one[0].n_embd, one[1].accumulate, one[1].batch_size
    assert chosen(1e12, {}) == (64, 3, 3)
    assert chosen(1.0, {}) == (16, 3, 3)
    assert chosen(1.0, {"accumulate": 4}) == (16, 4, 8)


def test_more_ranks_cut_the_same_rows_more_finely(run):
    run()
    for ranks, cut in [(1, (1, 8)), (2, (2, 4)), (3, (4, 2)), (5, (8, 1)), (9, (1, 8))]:
        _, t, resume = in_hours.begun_with(run.out, {}, {}, "auto", ranks)
        assert (t.accumulate, t.batch_size, resume) == (*cut, "auto" if cut == (1, 8) else "override")
    assert in_hours.begun_with(run.out, {}, {"lr": 1.0}, "auto", 2)[2] == "auto", "what else changes is refused"
    assert in_hours.begun_with(run.out, {}, {"accumulate": 1}, "auto", 2)[1].accumulate == 1


def test_what_is_given_stays(run):
    code, _, _ = run("--set", "model.n_layer=1", "--set", "model.n_embd=24", "--set", "model.n_head=2", "--set",
                     "train.optimizer=adamw", "--set", "model.family=llama", "--set", "train.batch_size=3")
    model, settings = load_model(run.out), load_training(run.out / "last")[2]["settings"]
    assert code == 0 and (model.config.n_embd, model.config.family) == (24, "llama")
    assert (settings["optimizer"], settings["batch_size"], settings["schedule"]) == ("adamw", 3, "wsd")


def test_a_run_that_is_there_goes_on_as_it_was_begun(run, monkeypatch):
    run("--set", "train.lr=0.01")
    first = load_training(run.out / "last")[2]
    monkeypatch.setattr(in_hours, "SIZES", ((3, 48, 3),))
    code, results, said = run()
    assert code == 0 and "resuming from step" in said
    assert results["steps"] <= first["decay"][1], "it ends as it was to end, and makes up what a busy machine left out"


@pytest.mark.parametrize("options, words", [(["--hours", "0"], "--hours must be above 0"),
                                            (["--hours", "inf"], "--hours must be above 0 and finite: got inf"),
                                            (["--init", "x"], "neither --init nor --mix"),
                                            (["--set", "train.schedule=cosine"], 'finish needs schedule "wsd"')])
def test_what_does_not_go_together_is_said(run, options, words):
    code, _, said = run(*options)
    assert code != 0 and words in said


@pytest.mark.parametrize("width, heads", [(16, 1), (40, 1), (64, 2), (80, 2), (100, 2), (320, 10)])
def test_a_width_that_is_given_gets_heads_that_divide_it(width, heads):
    class Text:
        vocab_size = 300

    for size in in_hours.SIZES:
        if size[1] != width:
            assert in_hours.settings(Text, size, {"n_embd": width}, {})[0].n_head == heads
    assert in_hours.settings(Text, in_hours.SIZES[0], {"n_embd": 64, "n_head": 4}, {})[0].n_head == 4
