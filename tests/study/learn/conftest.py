"""The judge has a process of its own, whose settings it changes; a test that judges in its own gets its own back."""
import sys
import warnings

import numpy as np
import pytest

from minillm.study.learn import pair


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """Nor is anything timed."""
    monkeypatch.setattr(pair, "SECONDS", 0.0)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with np.errstate(), warnings.catch_warnings():
        yield
