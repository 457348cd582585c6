"""The planner's cluster: the formula of a step on N machines, at its limits, and against simulated messages."""
import numpy as np
import pytest

from minillm.config import GPTConfig, TrainConfig
from minillm.workbench.cluster import BACKWARD, Network, network, planned_scaling, scaling, step_seconds

P = 124_439_808


def simulated(ranks, micros, micro, update, net):
    """A step's events, one rank after the other: the backward ends, shares are sent, all wait, weights are sent."""
    clock, left = np.zeros(ranks), micros
    while left > 0:
        working = min(ranks, left)
        left -= working
        backward = clock + micro * BACKWARD * (np.arange(ranks) < working)
        sent = clock + (ranks - 1) * (net.latency + 4 * P / ranks / net.bandwidth)
        forward = micro * (1 - BACKWARD)
        clock = np.full(ranks, max((np.maximum(backward, sent) + forward * (np.arange(ranks) < working)).max(), 0))
    return clock.max() + update / ranks + (ranks - 1) * (net.latency + 4 * P / ranks / net.bandwidth)


@pytest.mark.parametrize("ranks", [2, 4, 16, 64])
@pytest.mark.parametrize("net", [Network(50e-6, 1.25e9), Network(1e-3, 1.25e8), Network(0, 1e12)])
def test_the_formula_is_what_the_messages_take(ranks, net):
    want = simulated(ranks, 64, 2.0, 0.3, net)
    assert step_seconds(ranks, 64, 2.0, 0.3, P, net) == pytest.approx(want, rel=1e-9)


def test_limits():
    rows = scaling(64, 2.0, 0.3, P, Network(0.0, 1e15))
    assert [row["ranks"] for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert all(row["efficiency"] == pytest.approx(1, rel=1e-3) for row in rows)
    slow = scaling(64, 0.01, 0.3, P, Network(1e-3, 1.25e7))
    assert slow[-1]["speedup"] < 1 and slow[0]["speedup"] == 1           # the network costs more than the work
    assert [row["ranks"] for row in scaling(5, 2.0, 0.3, P, Network(0.0, 1e9))] == [1, 2, 4]


def test_a_plan_has_the_table():
    rows = planned_scaling(GPTConfig(2, 2, 64, 64, 300), TrainConfig(backend="numpy"), 1e10, network("10Gbit, 20us"))
    assert [row["ranks"] for row in rows][-1] == 64 and rows[0]["efficiency"] == 1
    muon = planned_scaling(GPTConfig(2, 2, 64, 64, 300), TrainConfig(backend="numpy", optimizer="muon"), 1e7,
                           network("10Gbit, 20us"))
    assert muon[0]["seconds"] > 64 / 1000 * rows[0]["seconds"] + 2 * 12 * 64 ** 2 * 5 * 4 * 64 / 1e7


@pytest.mark.parametrize("text", ["", "10", "10Gbit,slow", "0Gbit", "10GB"])
def test_other_networks_are_refused(text):
    with pytest.raises(ValueError, match="--network must be a bandwidth and a latency such as 10Gbit,50us"):
        network(text)


def test_networks():
    assert network("10Gbit,50us") == Network(50e-6, 1.25e9) and network("100 Mbit") == Network(50e-6, 1.25e7)
