"""What is verified on; and comparing: every bit, or within a tolerance of each array."""
import numpy as np
from faults import rough_model

from minillm import GPTConfig
from minillm.workbench.properties import subject
from minillm.workbench.properties.causality import positions_tried
from minillm.workbench.properties.subject import compare, subject_of


def test_tokens_of_a_small_and_a_large_model(monkeypatch):
    model = rough_model(config=GPTConfig(1, 1, 8, 300, 50))
    small = subject_of(model)
    assert small.tokens.shape == (4, 129) and positions_tried(small) == list(range(1, 129))
    assert (small.targets == -1).sum(axis=1).tolist() == [1, 2, 3, 4]
    assert np.array_equal(small.targets[:, :-4], small.tokens[:, 1:-3])
    monkeypatch.setattr(subject, "LARGE", 1000)
    assert subject_of(model).tokens.shape == (4, 33)
    monkeypatch.setattr("minillm.workbench.properties.causality.WORK", 1)
    assert positions_tried(small) == [1, 43, 85, 128]


def test_comparing():
    one = np.float32([1, 0])
    assert compare({"x": (one, one)}, 0).passed
    assert not compare({"x": (one, np.float32([1, -0.0]))}, 0).passed              # not the same bits
    assert compare({"x": (one, one + np.float32(1e-5))}, 1e-4).passed
    assert not compare({"big": (1e3 * one, 1e3 * one), "small": (one * 0.1, one)}, 1e-1).passed
    assert not compare({"x": (one * np.nan, one)}, 1e-4).passed
    assert not compare({"x": (one[:1], one)}, 1e-4).passed
