"""`minillm verify`: healthy models of all kinds pass, errors are failures, and a fault ends with exit code 1."""
import json

import numpy as np
import pytest
from faults import attention_with, failed, rough_model, with_kernels

from minillm import GPTConfig
from minillm.__main__ import main
from minillm.models.adapted import LoraModel
from minillm.models.quantized import quantize, save_quantized
from minillm.workbench import verify as checks
from minillm.workbench.properties import causality
from minillm.workbench.verify import CHECKS, verify, verify_model


def verdicts(rows):
    return {row["check"]: row["passed"] for row in rows}


@pytest.mark.parametrize("backend", ["numpy", "auto", pytest.param("cpu/bf16", marks=with_kernels)])
def test_a_healthy_model_passes(backend, tmp_path):
    model = rough_model(backend)
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rows = verify(tmp_path, backend)
    assert False not in verdicts(rows).values(), rows
    skipped = {row["check"]: row["figure"] for row in rows if row["passed"] is None}
    assert set(skipped) <= {"adapter", "transformers", "thread invariance", "reference ops"}
    assert all(text.startswith("skipped: ") for text in skipped.values())
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("config", [GPTConfig(1, 1, 4, 1, 2), GPTConfig(1, 2, 4, 2, 3, 0.5), GPTConfig(2, 1, 8, 3, 9)],
                         ids=str)
def test_the_smallest_models_pass(config):
    rows = verify_model(rough_model(config=config))
    assert False not in verdicts(rows).values(), rows


def test_adapters_and_quantized_models(tmp_path):
    base = rough_model()
    base.save_pretrained(tmp_path / "base")
    lora = LoraModel(base, 2, seed=3, name="moved/base")
    lora.params.flat[:] += 0.1
    for folder in ("run", "run/last"):
        lora.save_pretrained(tmp_path / folder)
    rows = verify(tmp_path / "run", "numpy")
    assert verdicts(rows)["adapter"] and False not in verdicts(rows).values(), rows
    lora.params.flat[:] *= 1.5
    lora.merged().save_pretrained(tmp_path / "run")                 # another adapter than the one beside it
    assert verdicts(verify(tmp_path / "run", "numpy"))["adapter"] is False
    save_quantized(tmp_path / "int8", quantize(base))
    rows = verify(tmp_path / "int8", "numpy")
    assert verdicts(rows)["causal"] and verdicts(rows)["save and load"] and verdicts(rows)["resume"] is None
    assert False not in verdicts(rows).values(), rows


def test_an_error_is_a_failure_and_little_memory_is_not(monkeypatch):
    def missing(*args):
        raise KeyError("nothing")
    model = rough_model()
    model.ops = model.ops._replace(head=missing)
    failed(causality.causal, model, "KeyError: 'nothing'")
    monkeypatch.setattr(checks, "free_bytes", lambda: 1000)
    rows = verify_model(rough_model())
    assert verdicts(rows)["resume"] is None and verdicts(rows)["causal"]
    assert "free" in next(row["figure"] for row in rows if row["check"] == "resume")


def test_the_command(tmp_path, capsys, monkeypatch):
    rough_model().save_pretrained(tmp_path)
    assert main(["verify", str(tmp_path), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "PASS  causal" in out and "0 failed" in out and "skip  adapter" in out
    from minillm import ops
    right = ops.attention_forward
    monkeypatch.setattr(ops, "attention_forward", lambda qkv, n_head: (attention_with(
        lambda T: np.ones((T, T), bool))(qkv, n_head, None), right(qkv, n_head)[1]))
    assert main(["verify", str(tmp_path), "--backend", "numpy", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(CHECKS) and not rows[0]["passed"] and rows[0]["layer"] == "h.0.attn (attention)"
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert "no such directory" in capsys.readouterr().err
