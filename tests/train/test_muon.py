"""Training with Muon: which parameters it is for, what AdamW keeps, memory and FLOPs, resume, the bf16 weight copy."""
import dataclasses
import math

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from training import CONFIG, MODEL, final_state, prepared, run_training  # noqa: F401  (prepared is a fixture)

from minillm import GPT, GPTConfig, Llama, LlamaConfig, TrainConfig, select
from minillm.kernels.select import choices
from minillm.models import dry_run
from minillm.models.adapted import LoraModel
from minillm.models.dry_run import Meter, metered
from minillm.models.params import Params, block_matrices, gpt_shapes
from minillm.ops.bfloat16 import bfloat16_bits
from minillm.ops.optimizer.muon import orthogonalised
from minillm.train import optim
from minillm.train.checkpoint import load_training, restore, save_training
from minillm.train.estimate import step_flops
from minillm.train.memory import optimizer_bytes
from minillm.train.optim import AdamW, Muon, optimizer_for

BF16 = "cpu/bf16"
in_bf16 = pytest.mark.skipif(BF16 not in choices("projection"), reason="no such kernels")
BACKENDS = ["auto", pytest.param(BF16, marks=in_bf16)]
GPT2 = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=6, vocab_size=11)
UNTIED = LlamaConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=4, n_embd=8, n_inner=24, block_size=6, vocab_size=11)
MUON = dataclasses.replace(CONFIG, optimizer="muon")


@pytest.fixture(autouse=True)
def it_pays(monkeypatch):
    """A bf16 weight copy is kept, as on a machine with AMX."""
    monkeypatch.setattr(optim, "multiplies_by_tiles", lambda: True)


def random_grads(model, seed=0):
    grads = model.params.zeros_like()
    grads.flat[:] = np.random.default_rng(seed).standard_normal(grads.flat.size)
    return grads


@pytest.mark.parametrize("model", [GPT(GPT2), Llama(UNTIED), Llama(dataclasses.replace(UNTIED, tied=True))],
                         ids=["gpt2", "llama", "tied"])
def test_embeddings_head_and_vectors_are_adamws_to_the_bit(model):
    other = model.on(model.ops, model.params.astype("float32"))
    muon, adamw, matrices = Muon(model.params, weight_decay=0.2), AdamW(other.params, weight_decay=0.2), []
    before = model.params.astype("float32")
    for seed in range(3):
        for optimizer in (muon, adamw):
            optimizer.step(random_grads(model, seed), 0.01, 0.5)
    for name, w in model.params.items():
        if w.ndim == 2 and name.startswith(("h.", "model.layers.")):
            matrices.append(name)
            assert not np.allclose(w, other.params[name]) and not np.allclose(w, before[name])
        else:
            assert_same_bits(w, other.params[name], name)
    assert set(muon.v) == set(model.params) - set(matrices) and len(matrices) == len(muon.matrices)


def test_queries_keys_and_values_are_each_made_orthogonal():
    """However small their gradients: as if they lay apart, as in a Llama."""
    model, C = GPT(GPT2, dtype="float64"), GPT2.n_embd
    grads, name = random_grads(model), "h.1.attn.c_attn.weight"
    grads[name][:, :C] *= 1e-3
    before, u = model.params[name].copy(), (1 - 0.95 ** 2) * grads[name]               # Nesterov's, of a first step
    Muon(model.params, weight_decay=0.0).step(grads, 1.0)
    moved = before - model.params[name]
    for part in np.split(np.arange(3 * C), 3):
        assert_close("third", moved[:, part], 0.2 * math.sqrt(C) * orthogonalised(u[:, part]), "regrouped float64")
        assert np.sqrt(np.mean(moved[:, part] ** 2)) == pytest.approx(0.2, rel=0.2)
    together = 0.2 * math.sqrt(3 * C) * orthogonalised(u)
    assert np.sqrt(np.mean(together[:, :C] ** 2)) < 0.02                    # what joining them would do


@pytest.mark.parametrize("c", [GPT2, UNTIED], ids=["gpt2", "llama"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_memory_is_what_the_optimizer_holds(c, ema, optimizer):
    t = TrainConfig(optimizer=optimizer, ema=ema)
    made = optimizer_for(dry_run.model_class(c)(c), t)
    held = [made.m, made.v] + ([made.mean] if ema else [])
    assert sum(params.flat.nbytes for params in held) == optimizer_bytes(c, t)


@pytest.mark.parametrize("c", [GPT2, UNTIED], ids=["gpt2", "llama"])
def test_flops_are_those_of_a_real_update(c):
    meter, t = Meter(), TrainConfig(optimizer="muon", batch_size=2, backend="numpy")
    model = dry_run.model_class(c)(c, ops=select("numpy"))
    optimizer = optimizer_for(model, t)
    optimizer.use(metered(model.ops, meter))
    optimizer.step(random_grads(model))
    planned = step_flops(c, t)
    assert {op: meter.flops[op, "update"] for op in ("adamw", "muon")} == {
        op: planned[op, "update"] for op in ("adamw", "muon")}
    assert planned["muon", "update"] > 5 * planned["adamw", "update"]


@in_bf16
def test_the_copy_in_bfloat16_follows():
    model = GPT(GPT2, ops=select(BF16))
    optimizer = Muon(model.params, ops=model.ops)
    optimizer.keep_bits()
    for seed in range(2):
        optimizer.step(random_grads(model, seed), 0.1)
        for name, w in model.params.items():
            assert_same_bits(model.params.bits[name], bfloat16_bits(w), name)
    optimizer.drop_bits()


@pytest.mark.parametrize("backend", BACKENDS)
def test_resume_repeats_bitwise(prepared, tmp_path, monkeypatch, backend):  # noqa: F811
    """20 steps at once; 9, then 11 of a new process's objects: with accumulation, clipping, dropout, a mean of the
    weights, and in bfloat16 the weight copy."""
    monkeypatch.setitem(run_training.__globals__, "GPT", lambda config, seed: GPT(config, seed, ops=select(backend)))
    config = dataclasses.replace(MUON, steps=20, ema=0.8, clip=0.5)
    assert config.accumulate == 2 and MODEL.dropout
    run_training(prepared, tmp_path / "whole", config)

    def progress(step, *rest):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(prepared, tmp_path / "parts", config, progress=progress)
    run_training(prepared, tmp_path / "parts", config)
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))
    names = ("model.safetensors", "last/optimizer.safetensors", "gradients.csv")
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_it_learns_and_a_checkpoint_of_another_optimizer_is_refused(prepared, tmp_path):  # noqa: F811
    _, state = run_training(prepared, tmp_path, dataclasses.replace(MUON, steps=10))
    adamw = dataclasses.replace(CONFIG, steps=10)
    with pytest.raises(ValueError, match="optimizer was muon, now adamw"):
        run_training(prepared, tmp_path, adamw)
    with pytest.raises(ValueError, match="has the moments of another optimizer"):
        run_training(prepared, tmp_path, adamw, resume="override")
    assert state["best"]["val_loss"] < math.log(MODEL.vocab_size) - 0.3


def test_a_run_older_than_the_setting_was_trained_by_adamw(prepared, tmp_path):  # noqa: F811
    model, _ = run_training(prepared, tmp_path, dataclasses.replace(CONFIG, steps=3))
    m, v, state = load_training(tmp_path / "last")
    old = {name: value for name, value in state["settings"].items() if name not in ("optimizer", "momentum", "ema")}
    save_training(tmp_path / "last", m, v, state | {"settings": old})
    fresh = state | {"settings": state["settings"] | {"optimizer": "muon"}}
    with pytest.raises(ValueError, match="optimizer was adamw, now muon"):
        restore(tmp_path, model, Muon(model.params), fresh)
    assert restore(tmp_path, model, AdamW(model.params), state)["step"] == 3


def test_adapters_are_not_for_muon():
    model = LoraModel(GPT(GPT2), rank=2)
    with pytest.raises(ValueError, match="optimizer: muon is for the matrices of a model's blocks.*adamw"):
        optimizer_for(model, TrainConfig(optimizer="muon"))


def test_block_matrices():
    shapes = gpt_shapes(GPT2) | {"h.0.attn.bias": (1, 1, 6, 6)}
    found = block_matrices(shapes)
    assert found["h.0.attn.c_attn.weight"] == 3 and found["h.1.mlp.c_proj.weight"] == 1 and len(found) == 8
    assert not block_matrices(Params({"wte.weight": (3, 4), "lm_head.weight": (3, 4)}).shapes)
