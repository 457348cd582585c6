"""A GPT trains on the device: the emulator's memory and kernels, without an array of the host between the two ends."""
from contextlib import nullcontext

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from training import final_state, training_data
from training import prepared as prepared  # a fixture

from minillm import GPT, AdamW, GPTConfig, TrainConfig
from minillm.__main__ import main
from minillm.kernels import select as registry
from minillm.kernels.device import missing
from minillm.kernels.select import select
from minillm.models.adapted import LoraModel
from minillm.models.params import on_host
from minillm.train import loop
from minillm.train.device import Recorded, to_device
from minillm.train.log import read_log
from minillm.train.loop import train
from minillm.train.nonfinite import NonFiniteError
from minillm.train.optim import bf16_weight_copy

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=6, vocab_size=13, scale_attn_by_inverse_layer_idx=True)
OTHER = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=5, vocab_size=13, dropout=0.2, activation="gelu",
                  tied=False)
STEPS = 5


def on_device(config=SMALL, dtype="float32", seed=0, attention="_1_naive"):
    """A GPT there; with the attention whose tiles are no larger than such small sequences, which takes a tenth of the
    time on the emulator."""
    model = to_device(GPT(config, seed, dtype, select("numpy")), "cudasim")
    model.ops = model.ops._replace(attention_forward=getattr(sim, f"attention_forward{attention}"),
                                   attention_backward=getattr(sim, f"attention_backward{attention}"))
    return model


def batches(config=SMALL):
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        tokens, targets = rng.integers(0, config.vocab_size, (2, 2, config.block_size))
        targets[0, 0] = -1
        yield tokens, targets


def trained(model, config, place=lambda x: x):
    """(losses, norms, parameters) of a few steps by the model's own functions."""
    optimizer, losses, norms = AdamW(model.params, ops=model.ops), [], []
    for step, (tokens, targets) in enumerate(batches(config)):
        loss, grads = model.loss_and_grads(place(tokens), place(targets), key=(0, step, 0),
                                           grads=optimizer.zero_grads())
        norms.append(optimizer.norm())
        optimizer.step(grads, 1e-2, 0.5)
        losses.append(loss)
    return losses, norms, on_host(model.params).flat


def trained_on_device(config=SMALL, *options):
    return trained(on_device(config, *options), config, sim.from_numpy)


@pytest.mark.parametrize("config", [SMALL, OTHER], ids=["usual", "other"])
def test_five_steps_equal_the_reference(config):
    """float64 to the last digits, parameters too; float32 in what it learned: Adam turns the rounding error of a
    gradient that is zero (of the keys' biases) into whole steps."""
    before = GPT(config, 0, "float64").params.flat
    wanted, got = trained(GPT(config, 0, "float64", select("numpy")), config), trained_on_device(config, "float64")
    for name, ours, reference in zip(("losses", "norms", "parameters"), got, wanted):
        assert_close(name, np.array(ours), np.array(reference), "odd sizes float64")
    assert np.abs(wanted[2] - before).max() > 0.03
    rounded = trained_on_device(config)
    assert_close("losses", np.array(rounded[0]), np.array(wanted[0]), "odd sizes float32")
    for again, first in zip(trained_on_device(config), rounded):
        assert_same_bits(np.array(again), np.array(first))


def test_a_step_with_the_best_attention():
    model, (tokens, targets) = on_device(OTHER, attention=""), next(batches(OTHER))
    loss, grads = model.loss_and_grads(*map(sim.from_numpy, (tokens, targets)))
    wanted, reference = GPT(OTHER, 0, ops=select("numpy")).loss_and_grads(tokens, targets)
    assert abs(loss - wanted) < 1e-5
    assert_close("gradients", on_host(grads).flat, reference.flat, "odd sizes float32")


def test_in_bfloat16_with_a_copy_of_the_weights():
    """The copy that the update leaves is what the GEMMs would round the weights to: the same bits, half the reading."""
    found = []
    for keeps in (False, True):
        model = to_device(GPT(OTHER, 0, ops=select("numpy")), "cudasim/bf16")
        optimizer, (tokens, targets) = AdamW(model.params, ops=model.ops), map(sim.from_numpy, next(batches(OTHER)))
        with bf16_weight_copy(model, optimizer) if keeps else nullcontext():
            assert (model.params.bits is not None) is keeps
            for _ in range(2):
                loss, grads = model.loss_and_grads(tokens, targets, grads=optimizer.zero_grads())
                optimizer.step(grads, 1e-3)
        found.append((np.float64(loss), on_host(model.params).flat))
    assert_same_bits(found[1], found[0])


def test_recorded_steps_are_those_that_were_launched_and_allocate_nothing():
    model = on_device()
    optimizer, recorded, allocations, losses = AdamW(model.params, ops=model.ops), Recorded(model), [], []
    for tokens, targets in batches():
        count = int((targets != -1).sum())
        loss, grads = recorded.loss_and_grads(tokens, targets, -1, (0, 0, 0), optimizer.zero_grads(), count)
        optimizer.norm()
        optimizer.step(grads, 1e-2, 0.5)
        losses.append(loss)
        allocations.append(sim.memory_counts()["allocations"])
    wanted, _, parameters = trained_on_device()
    assert losses == wanted
    assert_same_bits(on_host(model.params).flat, parameters)
    assert len(set(allocations[1:])) == 1 and next(iter(recorded.replays.values())).recording is not None
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 13\): got"):          # a replay would not look
        recorded.loss_and_grads(np.full((2, 6), 13), targets, -1, (0, 0, 0), optimizer.grads, 1)
    for name, wrong in (("tokens", (tokens + 0.5, targets)), ("tokens", (sim.from_numpy(tokens), targets)),
                        ("targets", (tokens, targets[:1]))):
        with pytest.raises(ValueError, match=f"{name} must be an array of NumPy, of integers"):
            recorded.loss_and_grads(*wrong, -1, (0, 0, 0), optimizer.grads, 1)
    assert recorded.loss_and_grads(tokens, np.full_like(targets, -1), -1, (0, 0, 0), optimizer.grads, 0)[0] == 0


def test_a_second_step_allocates_nothing_new():
    """Launched anew, too."""
    model = on_device()
    tokens, targets = map(sim.from_numpy, next(batches()))
    grads, counts = model.params.zeros_like(), []
    for _ in range(3):
        model.loss_and_grads(tokens, targets, grads=grads)
        counts.append(sim.memory_counts())
    assert counts[0] == counts[1] == counts[2]


def test_arrays_of_the_other_side_are_refused():
    host, model = GPT(SMALL, 0, ops=select("numpy")), on_device()
    tokens, targets = next(batches())
    there, too_large, ones = sim.from_numpy(tokens), sim.from_numpy(tokens + 13), np.ones(12, np.float32)
    for wrong, words in ((lambda: model.loss_and_grads(tokens, targets), "tokens must be an array of the device"),
                         (lambda: model.loss_and_grads(there, targets), "targets must be an array of the device"),
                         (lambda: host.loss_and_grads(there, there), "tokens must be an array of NumPy"),
                         (lambda: model.backward(ones, model.losses(there, there)[1]), "on the device"),
                         (lambda: model.loss_and_grads(too_large, there), r"tokens must be in \[0, 13\)"),
                         (lambda: model.loss_and_grads(there, there, grads=host.params.zeros_like()), "on the device")):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_parameters_come_and_go():
    host = GPT(SMALL, 3, ops=select("numpy"))
    params = host.params.on(sim)
    assert params.device is sim and params.n_decayed == host.params.n_decayed
    assert np.array_equal(params["wpe.weight"].numpy(), host.params["wpe.weight"])
    view = params["ln_f.weight"]
    view.fill(2)
    assert params.on(None)["ln_f.weight"].max() == 2 and host.params["ln_f.weight"].max() == 1
    assert not params.zeros_like().flat.numpy().any() and params.astype("float64").flat.dtype == "float64"
    params.take(host.params)
    assert_same_bits(params.on(None).flat, host.params.flat)
    params.clear()
    assert not view.numpy().any()


def test_what_cannot_train_there_says_so():
    from minillm import Llama, LlamaConfig
    small = LlamaConfig(n_layer=1, n_head=1, n_kv_head=1, head_dim=4, n_embd=4, n_inner=4, block_size=4, vocab_size=5)
    for other, got in ((Llama(small), "model.family=llama"), (LoraModel(GPT(SMALL)), r"adapters \(--lora-rank\)")):
        with pytest.raises(ValueError, match=f"train.backend=cudasim trains models of family gpt2.*: got {got}"):
            to_device(other, "cudasim")
    model = to_device(GPT(SMALL, ops=select("numpy")), "cudasim")
    with pytest.raises(ValueError, match="muon does not run on a device yet"):
        train(model, None, TrainConfig(optimizer="muon"), "unused")
    assert missing("cudasim", ("layernorm", "dpo_loss")) == ["dpo_loss"]
    assert to_device(host := GPT(SMALL, ops=select("numpy")), "cpu") is host


def test_what_cannot_train_there_is_refused_before_the_text_is_read(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n\n" * 40)
    for setting, words in (("model.family=qwen3", "got model.family=qwen3"),
                           ("train.backend=cudasi", "unknown backend 'cudasi'")):
        assert main(["train", "--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), "--set",
                     "train.backend=cudasim", "--set", setting]) == 1
        assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def device_run(prepared, run, steps, **settings):
    config = TrainConfig(steps=steps, batch_size=2, accumulate=2, lr=3e-3, warmup=2, eval_every=3, eval_batches=1,
                         save_every=2, log_every=1, backend="cudasim", ema=0.9, **settings)
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=280)
    model = on_device(shape)
    return train(model, training_data(prepared, config, shape), config, run)


def test_a_run_stopped_and_resumed_is_the_same_run(prepared, tmp_path):
    """Checkpoints, validation, the mean of the weights and several micro-batches: the loop is that of every backend."""
    device_run(prepared, tmp_path / "whole", 6)
    device_run(prepared, tmp_path / "parts", 3)
    device_run(prepared, tmp_path / "parts", 6)
    assert_same_bits(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    rows = read_log(tmp_path / "whole")
    assert len(rows) == 6 and rows[-1]["val_loss"] < 6 and GPT.from_pretrained(tmp_path / "whole").config.n_embd == 8


def test_a_nan_is_found_where_it_was_made(prepared, tmp_path):
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=280)
    config = TrainConfig(steps=2, batch_size=2, backend="cudasim")
    model = to_device(GPT(shape, 0, ops=select("numpy")), "cudasim")
    model.params["h.0.mlp.c_fc.bias"].fill(np.nan)
    with pytest.raises(NonFiniteError, match="in parameter h.0.mlp.c_fc.bias itself"):
        train(model, training_data(prepared, config, shape), config, tmp_path)


def test_the_command_trains_there(tmp_path, monkeypatch):
    """`minillm train --set train.backend=cudasim`: the steps are recorded ones, and the run is like any other."""
    calls = []

    class Watched(Recorded):
        def loss_and_grads(self, tokens, *rest):
            calls.append((type(tokens), self.model.params.device))
            return super().loss_and_grads(tokens, *rest)
    monkeypatch.setattr(loop, "Recorded", Watched)
    (tmp_path / "text.txt").write_text("\n\n".join(f"The cat number {i} sat on the mat." for i in range(40)))
    settings = ("train.backend=cudasim", "model.n_layer=1", "model.n_embd=8", "model.n_head=1", "model.block_size=4",
                "train.steps=3", "train.batch_size=1", "train.eval_batches=1", "train.log_every=1")
    assert main(["train", "--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), "--vocab-size", "260",
                 *(word for setting in settings for word in ("--set", setting))]) == 0
    assert calls == [(np.ndarray, sim)] * 3 and len(read_log(tmp_path / "run")) == 3
    assert GPT.from_pretrained(tmp_path / "run").params.device is None
