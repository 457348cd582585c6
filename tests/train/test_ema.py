"""The mean of the weights (EMA): its definition, what is validated and saved, resume, and the weights themselves."""
import dataclasses

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from training import CONFIG, final_state, prepared, run_training, training_data  # noqa: F401  (a fixture)

from minillm import GPT, GPTConfig, TrainConfig, select
from minillm.kernels.select import choices
from minillm.models.adapted import LoraModel
from minillm.models.pretrained import read_model
from minillm.train import optim
from minillm.train.checkpoint import load_training, mean_of
from minillm.train.loop import evaluate
from minillm.train.optim import AdamW, average, averaged, optimizer_for

BF16 = "cpu/bf16"
in_bf16 = pytest.mark.skipif(BF16 not in choices("projection"), reason="no such kernels")
BACKENDS = ["auto", pytest.param(BF16, marks=in_bf16)]
SMALL = GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=4, vocab_size=7)
EMA = dataclasses.replace(CONFIG, steps=20, ema=0.8)


@pytest.fixture(autouse=True)
def it_pays(monkeypatch):
    """A bf16 weight copy is kept, as on a machine with AMX."""
    monkeypatch.setattr(optim, "multiplies_by_tiles", lambda: True)


def test_it_is_the_weighted_mean_of_all_steps():
    weights = np.random.default_rng(0).standard_normal((30, 200_001))                   # several pieces
    mean = np.full(weights.shape[1], np.pi)                                             # where it starts is forgotten
    for t, w in enumerate(weights, 1):
        average(mean, w, 0.9, t)
        assert t > 1 or np.allclose(mean, w, rtol=0, atol=1e-15)
    shares = 0.9 ** np.arange(29, -1, -1)
    assert_close("mean", mean, shares @ weights / shares.sum(), "regrouped float64")


def test_the_weights_do_not_depend_on_it(prepared, tmp_path):  # noqa: F811
    run_training(prepared, tmp_path / "with", EMA)
    run_training(prepared, tmp_path / "without", dataclasses.replace(EMA, ema=0.0))
    assert_same_bits(final_state(tmp_path / "with"), final_state(tmp_path / "without"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_is_what_is_validated_and_saved(prepared, tmp_path, monkeypatch, backend):  # noqa: F811
    """At the root the mean, in last/ the weights and the mean: it is the best at the end, for its loss still falls."""
    monkeypatch.setitem(run_training.__globals__, "GPT", lambda config, seed: GPT(config, seed, ops=select(backend)))
    model, state = run_training(prepared, tmp_path, EMA)
    assert state["best"]["step"] == 20
    root, last = (GPT.from_pretrained(directory, select(backend)) for directory in (tmp_path, tmp_path / "last"))
    assert_same_bits(root.params.flat, mean_of(tmp_path / "last").flat)
    assert_same_bits(last.params.flat, model.params.flat)
    assert not np.allclose(root.params.flat, last.params.flat, atol=1e-4)
    nats, tokens = evaluate(root, training_data(prepared).validation())
    assert nats / tokens == pytest.approx(state["best"]["val_loss"], rel=1e-6)


def test_before_the_first_validation_the_mean_is_saved_too(prepared, tmp_path):  # noqa: F811
    def progress(step, *rest):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(prepared, tmp_path, dataclasses.replace(EMA, eval_every=0), progress=progress)
    assert_same_bits(read_model(tmp_path)[1].flat, mean_of(tmp_path / "last").flat)


def test_one_that_is_switched_on_later_begins_at_the_weights(prepared, tmp_path):  # noqa: F811
    plain = dataclasses.replace(CONFIG, steps=6)
    run_training(prepared, tmp_path, plain)
    weights = read_model(tmp_path / "last")[1].flat.copy()
    with pytest.raises(ValueError, match="ema was 0.0, now 0.8"):
        run_training(prepared, tmp_path, dataclasses.replace(plain, steps=7, ema=0.8))
    run_training(prepared, tmp_path, dataclasses.replace(plain, steps=7, ema=0.8, lr=3e-3), resume="override")
    want = weights.copy()
    average(want, final_state(tmp_path)[0], 0.8, 7)
    assert_same_bits(mean_of(tmp_path / "last").flat, want)


@pytest.mark.parametrize("kind", ["gpt", "adapter"])
def test_meanwhile_the_model_has_the_mean_and_then_its_weights_again(kind):
    model = GPT(SMALL) if kind == "gpt" else LoraModel(GPT(SMALL), rank=2)
    optimizer = optimizer_for(model, TrainConfig(ema=0.5))
    with averaged(model, optimizer):                        # no step yet: there is no mean
        assert not optimizer.mean.flat.any()
    grads = model.params.zeros_like()
    for size in (1, 2, 3):
        grads.flat[:] = size
        optimizer.step(grads)
    weights, mean = model.params.flat.copy(), optimizer.mean.flat.copy()
    with pytest.raises(ZeroDivisionError), averaged(model, optimizer):
        assert_same_bits(model.params.flat, mean)
        raise ZeroDivisionError
    assert_same_bits([model.params.flat, optimizer.mean.flat], [weights, mean])


@in_bf16
def test_the_weight_copy_is_set_aside_meanwhile():
    model = GPT(SMALL, ops=select(BF16))
    optimizer = AdamW(model.params, ops=model.ops, ema=0.5)
    optimizer.keep_bits()
    optimizer.step(model.params.zeros_like())
    bits = model.params.bits
    with averaged(model, optimizer):
        assert model.params.bits is None
    assert model.params.bits is bits and not model.params.flat.flags.writeable
    optimizer.drop_bits()


def test_a_damaged_mean_is_found(prepared, tmp_path):  # noqa: F811
    run_training(prepared, tmp_path, dataclasses.replace(EMA, steps=2))
    path = tmp_path / "last" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_training(tmp_path / "last")
