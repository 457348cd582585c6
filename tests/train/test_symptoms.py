"""The cheap checks of a log: in the progress line, in the verdict, and quiet where all is well."""
import csv
from dataclasses import replace

import pytest
from training import CONFIG, MODEL, prepared, run_training  # noqa: F401

from minillm.train.log import FAILURE
from minillm.train.symptoms import symptoms, verdict, warning

SETTINGS = {"warmup": 10, "lr": 1e-3, "clip": 1.0, "vocab_size": 1000}


def log(loss, norm=lambda i: 1.0, val=None, bpb=lambda i: 1.5):
    """Rows of a hundred steps from functions of the step."""
    rows = [{"step": i, "train_loss": loss(i), "grad_norm": norm(i), "lr": 1e-3} for i in range(1, 101)]
    for row in rows[9::10]:
        row |= {"val_loss": (val or loss)(row["step"]), "val_bpb": bpb(row["step"])}
    return rows


def falling(i):
    return 2 + 5 / (1 + i / 10)


@pytest.mark.parametrize("illness, rows", [
    ("loss not decreasing", log(lambda i: 6.9)),
    ("learning rate too high", log(lambda i: falling(i) if i < 50 else falling(50) + i / 50)),
    ("exploding gradients", log(falling, lambda i: 1.1 ** i)),
    ("exploding gradients", log(falling, lambda i: 500.0)),
    ("over-fitting", log(falling, val=lambda i: 3 + abs(i - 50) / 50)),
    ("leak", log(falling, val=lambda i: falling(i) / 2)),
    ("leak", log(falling, bpb=lambda i: 0.1)),
])
def test_a_sick_log(illness, rows):
    assert [found.illness for found in symptoms(rows, SETTINGS)] == [illness]
    assert warning(rows, SETTINGS) == f"{illness.upper()}  "
    assert verdict(rows, SETTINGS).startswith(f"verdict: {illness}: ") and "Try: " in verdict(rows, SETTINGS)


@pytest.mark.parametrize("rows", [log(falling), log(falling, lambda i: 3 - i / 50), log(falling)[:9], []])
def test_a_healthy_log(rows):
    assert not warning(rows, SETTINGS)
    assert verdict(rows, SETTINGS).startswith("verdict: healthy" if len(rows) > 10 else "verdict: too short to judge")


def test_the_progress_line_warns(prepared, tmp_path):  # noqa: F811
    """And only there: what is logged is as it was."""
    said = []
    config = replace(CONFIG, lr=1e-9, min_lr=0.0, steps=30)
    run_training(prepared, tmp_path, config, progress=lambda step, steps, text: said.append(text))
    assert said[0].startswith("loss ") and said[-1].startswith("LOSS NOT DECREASING  loss ")
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 30


def test_a_failure_is_recorded_until_the_run_goes_on(prepared, tmp_path):  # noqa: F811
    with pytest.raises(FloatingPointError):
        run_training(prepared, tmp_path, replace(CONFIG, lr=1000.0, clip=0.0))
    assert '"kind": "DivergenceError"' in (tmp_path / FAILURE).read_text()
    run_training(prepared, tmp_path, replace(CONFIG, steps=2), resume="never")
    assert not (tmp_path / FAILURE).exists()
