"""A NaN is traced to its op and layer."""
import numpy as np
import pytest
from training import CONFIG, MODEL, prepared, training_data  # noqa: F401  (prepared is a fixture)

from minillm import GPT
from minillm.models.adapted import LoraModel
from minillm.train.loop import train
from minillm.train.nonfinite import NonFiniteError


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
