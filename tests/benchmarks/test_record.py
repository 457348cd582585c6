"""benchmarks.record: what stands beside a run."""
import json
import sys

import pytest

from benchmarks import record
from minillm.__main__ import main
from minillm.data.sources.stories import stories

TINY = ("--set", "n_layer=1", "--set", "n_head=1", "--set", "n_embd=16", "--set", "block_size=32", "--set",
        "train.steps=2", "--vocab-size", "300")


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The record of a run of two steps: a step or two of the other side."""
    (tmp_path / "text.txt").write_text("\n".join(stories(300, 0)))
    (tmp_path / "more.txt").write_text("\n".join(stories(30, 1)))
    run, result = str(tmp_path / "run"), tmp_path / "record.json"
    assert main(["train", "--data", str(tmp_path), "--out", run, *TINY]) == 0
    monkeypatch.setattr(record, "SIZES", ((1, 16, 1),))
    monkeypatch.setattr(sys, "argv", ["record", run, "--hours", "1e-6", "--threads", "1", "--batch", "2", "--dropout",
                                      "0.1", "--json", str(result)])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record.main()
    return json.loads(result.read_text())


def test_compressors_profit_from_the_training_text(found):
    bits = found["compressors"]
    assert 0 < bits["xz after the training split"] < bits["xz"] < 8


def test_the_model_in_pytorch_is_trained_and_validated(found):
    pytest.importorskip("torch")
    theirs = found["nanoGPT's model in PyTorch"]
    assert theirs["steps"] >= 1 and theirs["tokens"] == theirs["steps"] * 2 * 32 and 1 < theirs["val_bpb"] < 8
