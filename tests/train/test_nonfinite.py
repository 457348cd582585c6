"""A NaN is traced to its op and layer; a loss or gradient norm beyond recovery ends the run, too."""
import dataclasses

import numpy as np
import pytest
from training import CONFIG, MODEL, prepared, training_data  # noqa: F401  (prepared is a fixture)

from minillm import GPT
from minillm.models.adapted import LoraModel
from minillm.train.loop import check_converging, train
from minillm.train.nonfinite import DivergenceError, NonFiniteError


def poisoned(model, op, call):
    """The model, with a NaN planted in the output of the call-th call of one forward or backward."""
    calls = []
    real = getattr(model.ops, op)

    def bad(*args, **into):
        result = real(*args, **into)
        calls.append(1)
        if (len(calls) - 1) % bad.every == call:
            (result[0] if isinstance(result, tuple) else result).flat[0] = np.nan
        return result

    bad.every = 2 if op.startswith(("attention", "gelu", "mlp")) else 1
    model.ops = model.ops._replace(**{op: bad})
    return model


@pytest.mark.parametrize("op, call, layer", [
    ("attention_forward", 1, "h.1.attn.c_attn"), ("mlp_forward", 0, "h.0.mlp.c_fc"),
    ("attention_backward", 0, "h.1.attn.c_attn"), ("mlp_backward", 1, "h.0.mlp.c_fc")])
def test_nan_is_traced_to_op_and_layer(prepared, tmp_path, op, call, layer):
    model = poisoned(GPT(MODEL), op, call)
    before = model.params.flat.copy()
    with pytest.raises(NonFiniteError, match=rf"step 0: {op}: 1 NaN.* in (after )?{layer}"):
        train(model, training_data(prepared), CONFIG, tmp_path)
    assert np.array_equal(before, model.params.flat), "a bad gradient must not reach the parameters"


def test_nan_in_a_parameter_is_named(prepared, tmp_path):
    model = GPT(MODEL)
    model.params["h.1.ln_2.weight"][3] = np.inf
    with pytest.raises(NonFiniteError, match="parameter h.1.ln_2.weight"):
        train(model, training_data(prepared), CONFIG, tmp_path)


@pytest.mark.parametrize("op, layer", [("lora_linear_forward", "h.0.attn.c_proj"), ("mlp_backward", "h.1.mlp.c_fc")])
def test_nan_beside_adapters_is_traced_too(prepared, tmp_path, op, layer):
    model = LoraModel(poisoned(GPT(MODEL), op, 0), rank=2, targets=("attn.c_proj",))
    with pytest.raises(NonFiniteError, match=rf"step 0: {op}: 1 NaN.* in {layer}"):
        train(model, training_data(prepared), CONFIG, tmp_path)


def test_divergence_is_named_before_it_is_a_nan(prepared, tmp_path):
    wild = dataclasses.replace(CONFIG, lr=100.0, warmup=0)
    with pytest.raises(DivergenceError, match=r"step \d: training has diverged: loss .* nats per token"):
        train(GPT(MODEL), training_data(prepared), wild, tmp_path)


def test_a_last_step_that_diverges_is_not_saved_as_the_best(prepared, tmp_path):
    wild = dataclasses.replace(CONFIG, lr=1e4, warmup=0, steps=2, save_every=0, eval_every=0)
    with pytest.raises(DivergenceError, match="step [12]: training has diverged"):
        train(GPT(MODEL), training_data(prepared), wild, tmp_path)
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "last").exists()


@pytest.mark.parametrize("loss, norm", [(5.0, 1e18), (1e7, 1.0), (float("nan"), 1.0)])
def test_what_no_training_recovers_from(loss, norm):
    check_converging(3, 99.0, 1e4)
    with pytest.raises(DivergenceError, match="step 3"):
        check_converging(3, loss, norm)
