"""A run directory is traced as what its training would do next."""
import json

import numpy as np
import pytest
from tracing import training as some_training

from minillm import GPT, AdamW, GPTConfig, Tokenizer
from minillm.__main__ import main
from minillm.models.load import load_model
from minillm.models.quantized import quantize, save_quantized
from minillm.study.trace import numeric
from minillm.study.trace.run import next_step, record_run
from minillm.train.checkpoint import save
from minillm.train.schedule import learning_rate

TEXT = "the cat sat on the mat. the dog sat on the cat. " * 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps' length, with the checkpoint of one."""
    directory = tmp_path_factory.mktemp("runs") / "mine"
    tokenizer = Tokenizer.train([TEXT], 270, stop_early=True)
    model = GPT(GPTConfig(1, 2, 8, 16, tokenizer.vocab_size))
    tokenizer.save(directory)
    optimizer, state = AdamW(model.params), some_training(model)
    optimizer.m.flat[:], optimizer.v.flat[:] = state.m.flat, state.v.flat
    settings = state.config.as_dict() | {"lr": 0.25, "warmup": 10}
    save(directory, model, optimizer, {"step": 3, "best": None, "decay": None, "settings": settings}, None)
    return directory


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(numeric, "WORK", 1e7)


def test_the_step_that_the_run_would_take_next(run):
    found = record_run(run, "the cat sat")
    assert found["training"]["moments"] == "of the run" and found["training"]["step"] == 4
    state = next_step(run, load_model(run))
    assert found["training"]["lr"] == learning_rate(state.config, 3) == pytest.approx(0.1)
    assert found["prompt"] == "the cat sat" == "".join(token["text"] for token in found["tokens"])
    assert found["parameters"][0]["m"] and found["model"]["directory"] == str(run)


def test_a_schedule_that_has_ended_hides_no_update(run, tmp_path):
    """Its rate is 0; the highest of the run is taken instead, and the page says so."""
    model = load_model(run)
    settings = some_training(model).config.as_dict() | {"lr": 0.25, "min_lr": 0.0, "warmup": 0, "steps": 3}
    save(tmp_path, model, AdamW(model.params), {"step": 3, "best": None, "decay": None, "settings": settings}, None)
    training = next_step(tmp_path / "last", model)
    assert training.lr == 0.25 and "ended" in training.moments


def test_the_moments_of_other_weights_are_not_taken(run, tmp_path):
    model = load_model(run)
    other = tmp_path / "other"
    other.mkdir()
    (other / "last").symlink_to(run / "last")
    model.params.flat[:] += 1
    model.save_pretrained(other)
    assert next_step(other, model).m is None and "best" in next_step(other, model).moments
    assert next_step(run / "last", load_model(run)).moments == "of the run"


def test_a_model_without_a_run_takes_its_first_step(run, tmp_path):
    load_model(run).save_pretrained(tmp_path)
    Tokenizer.from_pretrained(run).save(tmp_path)
    found = record_run(tmp_path, "the cat")
    assert found["training"]["moments"] == "fresh" and found["training"]["step"] == 1
    assert found["parameters"][0]["m"] is None


@pytest.mark.parametrize("prompt, words", [("", "at least two tokens"), ("t", "at least two tokens"),
                                           (TEXT, "context window of 16 tokens: got")])
def test_prompts(run, prompt, words):
    with pytest.raises(ValueError, match=words):
        record_run(run, prompt)


def test_the_command(run, tmp_path, capsys):
    assert main(["trace", str(run), "-p", "the cat sat", "-o", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    grads = load_model(run).loss_and_grads(*(np.array([[token["id"] for token in part]])
                                             for part in (found["tokens"][:-1], found["tokens"][1:])))[1]
    row = found["parameters"][0]
    assert np.array_equal(np.array(found["arrays"][row["gradient"]]["values"], np.float32), grads[row["name"]].ravel())
    assert main(["trace", str(tmp_path), "-p", "the cat"]) == 1
    assert main(["trace", str(run), "-p", "t", "-o", str(tmp_path / "b.html")]) == 1
    assert not (tmp_path / "b.html").exists()
    assert main(["trace", str(run), "-p", "the cat", "-o", str(tmp_path / "nowhere" / "b.html")]) == 1
    assert main(["trace", str(run), "-p", "the cat", "-o", f"{tmp_path}/folder/"]) == 1
    assert not (tmp_path / "folder").exists()
    assert main(["trace", str(run), "-p", "the cat sat", "-o", str(tmp_path / "c.html")]) == 0
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    said = capsys.readouterr().err
    assert "--out" in said
    assert "config.json" in said and "--prompt must be at least two tokens" in said


def test_quantized_runs_are_refused(run, tmp_path):
    save_quantized(tmp_path, quantize(load_model(run)))
    Tokenizer.from_pretrained(run).save(tmp_path)
    with pytest.raises(ValueError, match="int8, which are for generating"):
        record_run(tmp_path, "the cat sat")
