"""micro.py says in 250 lines what the package does: loss, every gradient, AdamW's steps and greedy text are equal."""
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import GPT, AdamW, GPTConfig, generate, micro, select
from minillm.ops.losses.cross_entropy import cross_entropy_forward

EQUAL = 1e-12
SHAPES = [micro.Shape(1, 1, 4, 5, 7), micro.Shape(2, 3, 21, 9, 37), micro.Shape(3, 2, 16, 6, 256)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def same_model(shape):
    """(parameters of micro, the package's GPT with the same numbers), far from their initialisation."""
    model = GPT(GPTConfig(**shape._asdict(), dropout=0.0), dtype=np.float64, ops=select("numpy"))
    p, rng = micro.initialise(shape, dtype=np.float64), np.random.default_rng(1)
    for w in (w for layer in p.values() for w in layer):
        w += 0.2 * rng.standard_normal(w.shape)
    for name, w in named(p):
        model.params[name][:] = w
    return p, model


def named(tree):
    """(the package's name, array) of each array of parameters, or of what has their structure."""
    for layer, arrays in tree.items():
        names = ("wte.weight", "wpe.weight") if layer == "embedding" else (f"{layer}.weight", f"{layer}.bias")
        yield from zip(names, arrays, strict=True)


def stretches(shape, seed):
    return np.random.default_rng(seed).integers(0, shape.vocab_size, (2, 3, shape.block_size))


def assert_equal(found, wanted, what):
    assert np.max(np.abs(found - wanted)) <= EQUAL * max(1, np.max(np.abs(wanted))), what


@every_shape
def test_loss_gradients_and_updates_are_the_packages(shape):
    """Four steps: each starts from what the one before left in parameters and moments. Both optimizers get the same
    gradients: those of the keys' biases are 0 but for rounding, which AdamW divides by its own size."""
    p, model = same_model(shape)
    optimizer = AdamW(model.params, lr=0.01)
    m, v = ({name: [np.zeros_like(w) for w in layer] for name, layer in p.items()} for _ in range(2))
    for step in range(1, 5):
        tokens, targets = stretches(shape, step)
        logits, caches = micro.forward(p, tokens, shape)
        loss, dlogits = micro.cross_entropy(logits, targets)
        grads = micro.backward(dlogits, caches)
        wanted_loss, wanted = model.loss_and_grads(tokens, targets)
        assert abs(loss - wanted_loss) <= EQUAL
        assert sorted(name for name, _ in named(grads)) == sorted(wanted)
        for name, gradient in named(grads):
            assert_equal(gradient, wanted[name], name)
            wanted[name][:] = gradient
        micro.adamw(p, grads, m, v, step, 0.01)
        optimizer.step(wanted)
        for name, w in named(p):
            assert_equal(w, model.params[name], name)


@every_shape
def test_greedy_text_is_the_packages(shape):
    """Beyond the context window, too, and from a prompt that is longer than it."""
    p, model = same_model(shape)
    for length in (1, shape.block_size, 2 * shape.block_size):
        prompt = np.arange(length) % shape.vocab_size
        found = micro.generate(p, prompt, 3 * shape.block_size, shape, temperature=0)
        assert found == generate(model, prompt, 3 * shape.block_size, temperature=0)


def test_shorter_sequences_than_the_longest():
    p, model = same_model(SHAPES[1])
    tokens = stretches(SHAPES[1], 0)[0][:, :4]
    logits, caches = micro.forward(p, tokens, SHAPES[1])
    assert_equal(logits, model.forward(tokens)[0], "logits")
    grads = micro.backward(np.ones_like(logits), caches)
    assert np.all(grads["embedding"][1][4:] == 0)                       # positions that no token had


def test_large_logits_do_not_overflow():
    logits, targets = np.array([[[1e4, 0.0, -1e4]]]), np.array([[0]])
    loss, dlogits = micro.cross_entropy(logits, targets)
    assert loss == cross_entropy_forward(logits[0], targets[0])[0][0] and np.isfinite(dlogits).all()


def test_draws_follow_the_softmax():
    """Of a model of one token, drawn often; a low temperature prefers the likeliest."""
    shape = micro.Shape(1, 1, 4, 1, 4)
    p, _ = same_model(shape)
    share = micro.softmax(micro.forward(p, np.array([[2]]), shape)[0][0, 0])
    drawn = [micro.generate(p, [2], 1, shape, temperature=1, seed=seed)[1] for seed in range(400)]
    assert np.abs(np.bincount(drawn, minlength=4) / 400 - share).max() < 5 * math.sqrt(0.25 / 400)
    assert {micro.generate(p, [2], 1, shape, temperature=1e-3, seed=seed)[1] for seed in range(9)} == {share.argmax()}


def test_targets_are_the_tokens_that_follow():
    x, targets = micro.batch(np.arange(100), micro.Shape(block_size=8), np.random.default_rng(0))
    assert x.shape == (12, 8) and np.array_equal(targets, x + 1)
    assert {int(row[0]) for row in micro.batch(np.arange(10), micro.Shape(block_size=8), np.random.default_rng(0))[0]
            } == {0, 1}                                                    # to the last token of the text


def test_training_learns_and_says_so(capsys):
    """A text that repeats itself: uniform bytes would cost 8 bits."""
    p = micro.train("the cat sat on the mat. " * 60, micro.Shape(1, 2, 32, 16), 200)
    assert {w.dtype for layer in p.values() for w in layer} == {np.dtype(np.float32)}
    said = capsys.readouterr().out
    assert said.startswith("step 1 of 200: ")               # a hundred steps may take a minute
    assert float(said.split()[-4]) < 3


def test_bytes_and_text():
    assert micro.decode(micro.encode("naïve 語")) == "naïve 語"
    assert micro.decode([255, 97]) == "\ufffda"


def test_a_text_that_is_too_short():
    with pytest.raises(ValueError, match="text must have at least 650 bytes: got 100"):
        micro.train("a" * 100, micro.Shape(), 1)


def test_it_runs_alone(tmp_path):
    """The file by itself, where there is no package beside it; and it is a few pages long."""
    shutil.copy(micro.__file__, tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 60)
    done = subprocess.run([sys.executable, "-I", "micro.py", "text.txt", "--steps", "2"], cwd=tmp_path, text=True,
                          capture_output=True, check=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    assert "step 2 of 2" in done.stdout and "the cat sat on t" in done.stdout
    assert len(Path(micro.__file__).read_text().splitlines()) <= 250


@pytest.mark.parametrize("text, words", [(None, "No such file"), ("short", "at least"),
                                         (b"\xff\xfe\x00" * 400, "utf-8")])
def test_a_text_that_will_not_do_is_one_line(tmp_path, text, words):
    path = tmp_path / "text.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = subprocess.run([sys.executable, micro.__file__, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
