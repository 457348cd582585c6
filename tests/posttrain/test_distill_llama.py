"""Distillation and speculative decoding between models of Llama's kin."""
import json

import numpy as np
import pytest
from tolerances import TOLERANCES

from minillm import Llama, LlamaConfig, Tokenizer, generate, load_model, select
from minillm.__main__ import main
from minillm.generation.sampling import Sampling
from minillm.generation.speculative import Counts, speculative_steps
from minillm.gradcheck import check_model
from minillm.models.load import model_class
from minillm.posttrain.distill import distillation_grads
from minillm.recipes.draft_pair import draft_shape

SHAPE = {"n_head": 2, "n_kv_head": 1, "head_dim": 4, "block_size": 8, "vocab_size": 23}
TEACHERS = {"llama": {}, "gemma2": {"family": "gemma2", "tied": True, "logit_cap": 2.0, "attention_cap": 3.0}}


def rough(config, seed=1, size=0.3, dtype="float64", ops="numpy"):
    model = model_class(config)(config, seed, dtype, select(ops))
    model.params.flat[:] += size * np.random.default_rng(seed).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradient_of_a_whole_student(teacher, tied):
    rng = np.random.default_rng(0)
    teacher = rough(LlamaConfig(**SHAPE, n_layer=2, n_embd=12, n_inner=20, **TEACHERS[teacher]))
    student = rough(LlamaConfig(**SHAPE, n_layer=1, n_embd=6, n_inner=10, tied=tied), 2, 0.1)
    tokens, targets = rng.integers(0, 23, (2, 5, 8))
    targets[0, 3] = -1
    count = int((targets != -1).sum())

    def loss_and_grads(params):
        grads = student.params.zeros_like()
        model = student.on(student.ops, params)
        return distillation_grads(model, teacher, tokens, targets, 2.0, 0.7, None, grads, count), grads
    _, grads = loss_and_grads(student.params)

    def loss(params):
        other = student.params.zeros_like()
        for name, array in params.items():
            other[name][:] = array
        return loss_and_grads(other)[0]
    rows = check_model(loss, grads, dict(student.params), samples=3, directions=1, **TOLERANCES["model central"].both)
    assert all(row.passed for row in rows), [str(row) for row in rows if not row.passed]


def test_the_teacher_caps_its_logits():
    """A student of its own kind that knows the same, but for the cap, has something to learn."""
    teacher = rough(LlamaConfig(**SHAPE, n_layer=1, n_embd=12, n_inner=20, **TEACHERS["gemma2"]))
    tokens = np.arange(16).reshape(2, 8) % 23
    grads = teacher.params.zeros_like()
    assert abs(distillation_grads(teacher, teacher, tokens, tokens, 1.0, 1.0, None, grads, 16)) > 1e-3


@pytest.mark.parametrize("ops", ["auto", "numpy"])
def test_speculative_decoding_gives_the_targets_greedy_text(ops):
    config = LlamaConfig(**SHAPE | {"block_size": 64}, n_layer=2, n_embd=12, n_inner=20, family="mistral", window=9)
    target, counts = rough(config, 1, 0.5, "float32", ops), Counts()
    draft = target.on(target.ops, target.params.astype("float32"))
    draft.params.flat[:] += 0.02 * np.random.default_rng(3).standard_normal(draft.params.flat.size)
    found = [step.token for step in speculative_steps(target, draft, [1, 2, 3], 40, Sampling(0.0), counts=counts)]
    assert [1, 2, 3, *found] == generate(target, [1, 2, 3], 40, temperature=0)
    assert counts.accepted > 5 and counts.tokens_per_pass > 1.2


def test_the_shape_of_a_draft():
    c = draft_shape(LlamaConfig(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_inner=14336, n_layer=32), 2, 256)
    assert (c.n_head, c.n_kv_head, c.head_dim, c.n_inner, c.n_layer) == (4, 1, 64, 896, 2)


def test_the_command_makes_a_draft_that_generate_takes(tmp_path, capsys):
    text = "the quick brown fox jumps over the lazy dog. "
    tokenizer = Tokenizer.train([text * 30], 280, stop_early=True)
    config = LlamaConfig(**SHAPE | {"block_size": 32, "vocab_size": tokenizer.vocab_size}, n_layer=2, n_embd=16,
                         n_inner=24, family="qwen2", qkv_bias=True, tied=True)
    Llama(config).save_pretrained(tmp_path / "target")
    tokenizer.save(tmp_path / "target")
    for i in range(8):
        (tmp_path / f"note{i}.txt").write_text(f"Note {i}: " + text * 12)
    words = ["distill", tmp_path / "target", "--out", tmp_path / "draft", "--steps", 3, "--layers", 1, "--width", 8,
             "--data", *(tmp_path / f"note{i}.txt" for i in range(8)), "--json"]
    assert main(list(map(str, words))) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["draft"]["steps"] == 3 and len(results["speculation"]) == 4
    draft = load_model(tmp_path / "draft")
    assert isinstance(draft, Llama) and draft.config.family == "qwen2" and draft.config.n_embd == 8
    assert main(["generate", str(tmp_path / "target"), "--draft", str(tmp_path / "draft"), "-n", "5"]) == 0
