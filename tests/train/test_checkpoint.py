"""The training state beside a model: exact round trips, and bit rot that is found and named."""
import random

import numpy as np
import pytest
from some_params import CONFIG, random_params, save_run
from tolerances import assert_same_bits

from minillm.models.pretrained import write_model
from minillm.train.checkpoint import load_training, save_training


def test_training_state_round_trip_is_exact(tmp_path):
    save_run(tmp_path)
    m, v, state = load_training(tmp_path)
    assert_same_bits([m.flat, v.flat], [random_params(seed=seed).flat for seed in (1, 2)])
    assert list(m) == list(v) == list(random_params()) and m.shapes == v.shapes == random_params().shapes
    assert state == {"step": 7, "best": float("inf"), "lr": 0.1 + 0.2, "nested": {"betas": [0.9, 0.95]}, "no": None}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_bit_rot_is_found_and_named(tmp_path, name):
    save_run(tmp_path)
    intact, rng = (tmp_path / name).read_bytes(), random.Random(0)
    for place in rng.sample(range(len(intact)), 40):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            state = load_training(tmp_path)[2]
        except ValueError as error:   # a checksum damaged in state.json itself accuses the file that it is of
            assert name in str(error)
        else:   # only white space in state.json may change unnoticed
            assert name == "state.json" and bytes(damaged).split() == intact.split() and state["step"] == 7
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_training(tmp_path)


def test_states_that_cannot_be_written(tmp_path):
    write_model(tmp_path, CONFIG, random_params())
    for state, word in (({"checksums": 1}, "checksums"), ({"a": np.float32(1)}, "JSON")):
        with pytest.raises(ValueError, match=word):
            save_training(tmp_path, random_params(), random_params(), state)
        assert not (tmp_path / "state.json").exists()
