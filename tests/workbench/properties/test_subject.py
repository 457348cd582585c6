"""Comparing: every bit, or within a tolerance of each array."""
import numpy as np

from minillm.workbench.properties.subject import compare


def test_comparing():
    one = np.float32([1, 0])
    assert compare({"x": (one, one)}, 0).passed
    assert not compare({"x": (one, np.float32([1, -0.0]))}, 0).passed              # not the same bits
    assert compare({"x": (one, one + np.float32(1e-5))}, 1e-4).passed
    assert not compare({"big": (1e3 * one, 1e3 * one), "small": (one * 0.1, one)}, 1e-1).passed
    assert not compare({"x": (one * np.nan, one)}, 1e-4).passed
    assert not compare({"x": (one[:1], one)}, 1e-4).passed
