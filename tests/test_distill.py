"""Distillation: the loss against autograd, a whole student's gradient, and students that come to agree."""
import json
import math

import numpy as np
import pytest

from minillm.__main__ import main
from minillm.config import GPTConfig, TrainConfig
from minillm.gradcheck import check_model
from minillm.kernels.select import OPS, Dims, functions, select
from minillm.models.gpt2 import GPT
from minillm.ops import cross_entropy_forward, distillation_loss_backward, distillation_loss_forward
from minillm.posttrain.distill import distill_step, distillation_grads

TEACHER = GPTConfig(n_layer=2, n_head=2, n_embd=12, block_size=8, vocab_size=23)
STUDENT = GPTConfig(n_layer=1, n_head=1, n_embd=6, block_size=8, vocab_size=23, dropout=0.1)


def rough(config, seed, size=0.3, ops="numpy", dtype="float64"):
    model = GPT(config, seed, dtype=dtype, ops=select(ops))
    model.params.flat[:] += size * np.random.default_rng(seed).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("temperature, weight", [(2.0, 0.7), (1.0, 0.9), (0.5, 1.0), (4.0, 0.0)])
def test_the_loss_equals_autograds_in_float64(temperature, weight):
    pytest.importorskip("torch")
    from benchmarks import oracle_torch
    spec = OPS["distillation_loss"]
    args = spec.sample(np.random.default_rng(5), "float64", Dims(B=4, T=20, V=31)) | {
        "temperature": temperature, "weight": weight}
    dout = np.random.default_rng(6).standard_normal(80)
    theirs = oracle_torch.candidate(spec, args, dout, 1).results()
    forward, backward = (getattr(select("numpy"), name) for name in functions(spec))
    out, cache = forward(**args)
    assert np.abs(out - theirs["out"]).max() < 1e-6
    assert np.abs(backward(dout, cache) - theirs["dlogits"]).max() < 1e-6


def test_its_ends_are_cross_entropy_and_nothing():
    """Weight 0 is cross-entropy; weight 1 with the student's own logits is 0, and so is its gradient."""
    args = OPS["distillation_loss"].sample(np.random.default_rng(1), "float64", Dims(V=7))
    args |= {"weight": 0.0}
    expected, _ = cross_entropy_forward(args["logits"], args["targets"])
    assert np.abs(distillation_loss_forward(**args)[0] - expected).max() < 1e-14
    losses, cache = distillation_loss_forward(**args | {"weight": 1.0, "teacher": args["logits"]})
    assert np.abs(losses).max() < 1e-14
    assert np.abs(distillation_loss_backward(np.ones_like(losses), cache)).max() < 1e-14


def test_temperature_keeps_the_size_of_the_gradient():
    """That is what T^2 is for: at high T the gradient no longer changes with it (Hinton et al., section 2.1)."""
    args = OPS["distillation_loss"].sample(np.random.default_rng(2), "float64", Dims(V=9)) | {"weight": 1.0}

    def gradient(temperature):
        losses, cache = distillation_loss_forward(**args | {"temperature": temperature})
        return distillation_loss_backward(np.ones_like(losses), cache)
    assert np.abs(gradient(1000.0) - gradient(2000.0)).max() < 2e-3 * np.abs(gradient(1000.0)).max()


def test_gradient_of_a_whole_student():
    """Every tensor, with dropout on and two targets ignored; B*T = 264 rows are two chunks of the head."""
    rng = np.random.default_rng(0)
    teacher, student = rough(TEACHER, 1), rough(STUDENT, 2, 0.1)
    tokens, targets = rng.integers(0, 23, (2, 33, 8))
    targets[0, 3] = targets[5, 7] = -1
    count, key = int((targets != -1).sum()), (0, 1, 0)

    def loss_and_grads(params):
        model, grads = GPT(STUDENT, ops=student.ops, params=params), student.params.zeros_like()
        return distillation_grads(model, teacher, tokens, targets, 2.0, 0.7, key, grads, count), grads

    _, grads = loss_and_grads(student.params)
    rows = check_model(lambda params: loss_and_grads(params)[0], grads, student.params, samples=3, directions=2)
    assert all(row.passed for row in rows), [str(row) for row in rows if not row.passed]


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_student_comes_to_agree_with_its_teacher(backend):
    """On random tokens there is nothing to learn but the teacher: KL falls to a third."""
    teacher = rough(TEACHER, 3, ops=backend, dtype="float32")
    config = TrainConfig(steps=60, batch_size=16, lr=1e-2, warmup=5, weight_decay=0.0)
    data = RandomTokens()
    first, last = (train_for(steps, teacher, data, config, backend)[-1] for steps in (1, 60))
    assert last < first / 3


class RandomTokens:
    def batch(self, step, micro=0):
        return np.random.default_rng((step, micro)).integers(0, 23, (2, 16, 8))


def train_for(steps, teacher, data, config, backend):
    from minillm.train.optim import AdamW
    student = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=23), 5, ops=select(backend))
    optimizer, step = AdamW(student.params, ops=student.ops), distill_step(teacher, 1.0, 1.0)
    return [step(student, optimizer, data, config, {"step": i})["train_loss"] for i in range(steps)]


# ---- the command ----------------------------------------------------------------------------------------------------

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
    # tells of whom and of what it learned
    assert main(["card", str(tmp_path / "draft")]) == 0
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
