"""What a file or a checkpoint loses is found; the run is only read."""
import numpy as np
import pytest
from faults import failed, found, rough_model

from minillm import GPT
from minillm.train.optim import AdamW
from minillm.workbench.properties import saving


def test_weights_that_are_saved_rounded(monkeypatch):
    right = GPT.save_pretrained

    def rounded(self, directory, eot_token=None):
        right(self.on(self.ops, self.params.astype(np.float16).astype(np.float32)), directory, eot_token)
    monkeypatch.setattr(GPT, "save_pretrained", rounded)
    failed(saving.save_and_load, rough_model(), "wte.weight")
    failed(saving.resume, rough_model(), "tensors differ after resuming: wte.weight")


@pytest.mark.parametrize("lost", ["m", "v", "steps"])
def test_a_checkpoint_that_loses_something(monkeypatch, lost):
    right = saving.restore

    def forgetful(run, learner, optimizer, *rest, **settings):
        kept = right(run, learner, optimizer, *rest, **settings)
        if lost == "steps":
            optimizer.steps = 0
        else:
            getattr(optimizer, lost).flat[:] = 0
        return kept
    monkeypatch.setattr(saving, "restore", forgetful)
    failed(saving.resume, rough_model(), "after resuming")


def test_resuming_begins_with_the_runs_own_checkpoint(tmp_path):
    model = rough_model()
    optimizer = AdamW(model.params)
    optimizer.m.flat[:], optimizer.v.flat[:], optimizer.steps = 1e-3, 1e-4, 7
    state = {"step": 7, "seed": 5, "data": "abc", "settings": {"lr": 1}, "best": {"step": 7}}
    model.save_pretrained(tmp_path)
    saving.save(tmp_path, model, optimizer, state, None)
    for directory in (tmp_path, tmp_path / "last"):
        result = found(saving.resume, model, directory)
        assert result.passed and result.figure.startswith("step 9"), result
    path = tmp_path / "last" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    failed(saving.resume, model, "damaged", tmp_path)
