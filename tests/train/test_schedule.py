"""The learning rate's warm-up and cosine."""
import math

import pytest

from minillm.train.schedule import cosine_schedule


def test_schedule():
    """Warm-up from lr/warmup to lr, half a cosine down to min_lr, and flat after the end."""
    def rate(step):
        return cosine_schedule(step, warmup=10, steps=110, lr=1.0, min_lr=0.1)
    assert rate(0) == pytest.approx(0.1) and rate(4) == pytest.approx(0.5)
    assert rate(9) == rate(10) == 1.0
    assert rate(35) == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2))
    assert rate(60) == pytest.approx(0.55) and rate(110) == rate(500) == pytest.approx(0.1)
    assert all(rate(step) > rate(step + 1) for step in range(10, 110))


def test_schedule_without_warm_up_or_cosine():
    assert cosine_schedule(0, 0, 10, 1.0, 0.0) == 1.0
    assert cosine_schedule(10, 10, 10, 1.0, 0.5) == 1.0
    assert cosine_schedule(11, 10, 10, 1.0, 0.5) == pytest.approx(0.5)
