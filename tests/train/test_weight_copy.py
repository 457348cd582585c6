"""Training in bfloat16 with a bf16 copy of the master weights: the bits of training without, and no stale copy."""
import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
from test_bf16 import BF16, KERNELS, rounded, upper_halves
from test_gemm import threads  # noqa: F401  (a fixture)
from tolerances import assert_same_bits, same_bits
from training import CONFIG, MODEL, final_state, prepared, run_training  # noqa: F401  (prepared is a fixture)

from minillm import GPT, GPTConfig, TrainConfig, select
from minillm.models.adapted import LoraModel
from minillm.models.packing import Batch
from minillm.ops.bfloat16 import bfloat16_bits
from minillm.train import loop, optim
from minillm.train.loop import one_step
from minillm.train.nonfinite import NonFiniteError, find_nonfinite
from minillm.train.optim import AdamW, bf16_weight_copy

SMALL = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=40, vocab_size=301, dropout=0.1)      # V: odd


@pytest.fixture(autouse=True)
def it_pays(monkeypatch):
    """As on a machine with AMX: elsewhere `train` keeps no copy."""
    monkeypatch.setattr(optim, "multiplies_by_tiles", lambda: True)


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


# ---- the ops take weights by their bits, and give what they give for floats ----

CASES = {
    "linear": [({"x": normal(N, I), "bias": normal(J)}, {"weight": normal(I, J)})
               for N, I, J in ((1, 1, 1), (3, 5, 7), (40, 33, 97), (1030, 51, 17), (33, 1030, 40), (0, 5, 7))],
    "mlp": [({"x": normal(N, 20), "fc_bias": normal(91), "proj_bias": normal(31)},
             {"fc_weight": normal(20, 91), "proj_weight": normal(91, 31)}) for N in (3, 1100, 0)],
    "linear_cross_entropy": [({"x": normal(N, C), "targets": np.arange(N) % V}, {"wte": normal(V, C)})
                             for N, C, V in ((3, 5, 7), (40, 33, 2100), (1030, 5, 65_000))],      # the last: made again
}


@pytest.mark.parametrize("op, rest, weights", [(op, *case) for op, cases in CASES.items() for case in cases])
def test_ops_take_weights_by_their_bits(op, rest, weights):
    """Forward and backward, to the bit; gradients of the weights are floats all the same."""
    forward, backward = (getattr(select(BF16), f"{op}_{way}") for way in ("forward", "backward"))

    def run(weights):
        out, cache = forward(**rest, **weights)
        return [out, *backward(normal(*out.shape), cache)]

    by_bits = {name: bfloat16_bits(weight) for name, weight in weights.items()}
    assert_same_bits(by_bits, {name: upper_halves(rounded(w)) for name, w in weights.items()})
    got = run(by_bits)
    assert {array.dtype.name for array in got} == {"float32"}
    assert_same_bits(got, run(weights))


def test_one_weight_of_an_mlp_may_be_bits_and_the_other_not():
    ops = select(BF16)
    x, fc, proj, biases = normal(3, 4), bfloat16_bits(normal(4, 5)), normal(5, 4), (normal(5), normal(4))
    mixed, whole = (ops.mlp_forward(x, fc, biases[0], weight, biases[1])[0] for weight in (proj, bfloat16_bits(proj)))
    assert_same_bits(mixed, whole)


def test_wrong_bits_are_named():
    ops = select(BF16)
    x, fc, proj = normal(3, 4), bfloat16_bits(normal(4, 5)), bfloat16_bits(normal(5, 4))
    for weight in (fc.astype("int16"), fc.astype("float64")):
        with pytest.raises(ValueError, match="weight must have dtype"):
            ops.linear_forward(x, weight, normal(5))
    with pytest.raises(ValueError, match="weight must be C-contiguous"):
        ops.linear_forward(x, np.asfortranarray(fc), normal(5))
    with pytest.raises(ValueError, match="proj_weight must have dtype"):
        ops.mlp_forward(x, fc, normal(5), normal(5, 4).astype("float64"), normal(4))
    with pytest.raises(ValueError, match="wte must have shape"):
        ops.linear_cross_entropy_forward(x, proj[:, :3].copy(), np.zeros(3, int))


# ---- training ----

class Batches:
    """data.batch for `one_step`: random tokens."""

    def batch(self, step, micro):
        tokens = np.random.default_rng((step, micro)).integers(0, SMALL.vocab_size, (4, SMALL.block_size + 1))
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy())


def steps(copy, accumulate=1, count=4, ops=None, check=True):
    """Losses, parameters and moments of some steps with dropout and clipping; after each the copy must be that of the
    new weights, unless `check` is False."""
    model = GPT(SMALL, ops=ops or select(BF16))
    optimizer, losses = AdamW(model.params, ops=model.ops), []
    config = TrainConfig(accumulate=accumulate, clip=0.5, warmup=0, lr=1e-2)
    with bf16_weight_copy(model, optimizer) if copy else nullcontext():
        for step in range(count):
            losses.append(one_step(model, optimizer, Batches(), config, {"step": step})["train_loss"])
            if copy and check:
                assert np.array_equal(model.params.bits.flat, upper_halves(rounded(model.params.flat)))
    assert model.params.bits is None
    return losses, [part.flat for part in (model.params, optimizer.m, optimizer.v)]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("count", [1, 2])
def test_training_is_the_same_with_and_without_the_copy(accumulate, count):
    KERNELS.set_threads(count)
    assert_same_bits(steps(True, accumulate), steps(False, accumulate))


def test_the_gemms_read_the_copy():
    """With the copy no weight of a GEMM arrives in float, without it all do: the test above compares two things."""
    ops, seen = select(BF16), []

    def noting(function, places):
        def noted(*args, **into):
            seen.extend(args[place].dtype.name for place in places)
            return function(*args, **into)
        return noted

    changed = {name: noting(getattr(ops, name), places) for name, places in (
        ("linear_forward", [1]), ("mlp_forward", [1, 3]), ("linear_cross_entropy_forward", [1]))}
    steps(True, count=2, ops=ops._replace(**changed))
    assert seen == 2 * (2 * 4 + 1) * ["uint16"]
    seen.clear()
    steps(False, count=1, ops=ops._replace(**changed))
    assert set(seen) == {"float32"}


def test_a_stale_copy_is_caught():
    """Planted: an update that forgets the copy. The comparison in `steps` sees it; so do losses and parameters."""
    ops = select(BF16)
    forgetful = ops._replace(adamw_update=lambda *args: ops.adamw_update(*args[:-1]))
    with pytest.raises(AssertionError):
        steps(True, ops=forgetful)
    (losses, params), (right_losses, right_params) = steps(True, ops=forgetful, check=False), steps(False)
    assert losses[0] == right_losses[0] and losses[1] != right_losses[1]
    assert not any(map(same_bits, params, right_params))


def test_others_cannot_write_meanwhile(tmp_path):
    """Every way through params raises; afterwards all may write again, and a copy made anew follows."""
    model = GPT(SMALL, ops=select(BF16))
    optimizer = AdamW(model.params, ops=model.ops)
    model.save_pretrained(tmp_path)
    with bf16_weight_copy(model, optimizer):
        for write in (lambda: model.params.flat.fill(0), lambda: model.params["wte.weight"].fill(0),
                      lambda: model.params["h.0.mlp.c_fc.weight"].T.fill(0), lambda: model.load_weights(tmp_path)):
            with pytest.raises(ValueError, match="read-only"):
                write()
    model.params["wte.weight"][0, 0] = 5
    model.load_weights(tmp_path)
    with pytest.raises(ZeroDivisionError), bf16_weight_copy(model, optimizer):
        raise ZeroDivisionError
    model.params.flat[:] = 2
    optimizer.keep_bits()
    assert set(model.params.bits.flat) == {0x4000} and not model.params.flat.flags.writeable
    assert model.params.zeros_like().bits is None and model.params.astype("float64").flat.flags.writeable


@pytest.mark.parametrize("backend", ["numpy", "cpu", {"linear": BF16, "mlp": BF16}], ids=str)
def test_only_models_whose_gemms_are_all_bfloat16_keep_a_copy(backend):
    model = GPT(SMALL, ops=select(backend))
    with bf16_weight_copy(model, AdamW(model.params, ops=model.ops)):
        assert model.params.bits is None and model.params.flat.flags.writeable
    adapter = LoraModel(GPT(SMALL, ops=select(BF16)), rank=2)
    with bf16_weight_copy(adapter, AdamW(adapter.params, ops=adapter.ops)):
        assert adapter.params.bits is None and adapter.base.params.bits is None
    with pytest.raises(ValueError, match="params must be float32"):
        AdamW(GPT(SMALL, dtype=np.float64).params).keep_bits()


def test_no_copy_where_it_does_not_pay(monkeypatch):
    monkeypatch.setattr(optim, "multiplies_by_tiles", lambda: False)
    model = GPT(SMALL, ops=select(BF16))
    with bf16_weight_copy(model, AdamW(model.params, ops=model.ops)):
        assert model.params.bits is None


def test_generation_and_logits_do_not_see_the_copy():
    model = GPT(SMALL, ops=select(BF16))
    tokens = Batches().batch(0, 0)[0]

    def decoded():
        return model.decode(tokens[:, :5], model.new_cache(4)), model.forward(tokens)[0]

    plain = decoded()
    with bf16_weight_copy(model, AdamW(model.params, ops=model.ops)):
        assert_same_bits(decoded(), plain)


@pytest.mark.parametrize("op, layer", [("mlp_forward", "h.0.mlp.c_fc"), ("linear_forward", "h.0.attn.c_attn"),
                                       ("linear_cross_entropy_forward", "wte")])
def test_a_nan_is_traced_to_its_layer(op, layer):
    ops = select(BF16)

    def bad(*args):
        out, cache = getattr(ops, op)(*args)
        out.flat[0] = np.nan
        return out, cache

    model = GPT(SMALL, ops=ops._replace(**{op: bad}))
    with bf16_weight_copy(model, AdamW(model.params, ops=ops)), pytest.raises(NonFiniteError, match=f"in {layer}$"):
        find_nonfinite(model, [Batches().batch(0, 0)], None)


# ---- the loop: resume, and the same files as without the copy ----

@pytest.fixture
def in_bfloat16(monkeypatch):
    """run_training trains in bfloat16."""
    monkeypatch.setitem(run_training.__globals__, "GPT", lambda config, seed: GPT(config, seed, ops=select(BF16)))


def test_resume_repeats_bitwise_and_the_copy_changes_nothing(in_bfloat16, prepared, tmp_path, monkeypatch):
    """20 steps at once; 9, then 11 of a new process's objects; and 20 without the copy."""
    config = dataclasses.replace(CONFIG, steps=20)
    model, _ = run_training(prepared, tmp_path / "whole", config)
    assert model.params.bits is None and model.params.flat.flags.writeable
    stop = []

    def progress(step, *rest):
        if step == 9:
            stop.append(step)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(prepared, tmp_path / "parts", config, progress=progress)
    run_training(prepared, tmp_path / "parts", config)
    assert stop
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))
    monkeypatch.setattr(loop, "bf16_weight_copy", lambda model, optimizer: nullcontext())
    run_training(prepared, tmp_path / "without", config)
    assert_same_bits(final_state(tmp_path / "without"), final_state(tmp_path / "whole"))
    assert MODEL.dropout > 0 and config.accumulate == 2
