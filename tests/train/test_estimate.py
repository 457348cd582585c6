"""What `minillm train` says before a run."""
from dataclasses import replace

from minillm.config import GPTConfig, TrainConfig
from minillm.train import estimate
from minillm.train.estimate import describe_run, flops_per_second, step_flops

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=300)


def test_two_lines():
    first, second = describe_run(SMALL, TrainConfig(steps=50, batch_size=4, accumulate=2)).splitlines()
    assert "M parameters, about 0.0 GB to train" in first
    assert "50 steps of 256 tokens, 0.4 for each parameter" in second and second.endswith("here")


def test_flops_of_any_number_of_micro_batches():
    t = TrainConfig(batch_size=4)
    one, two, five = (step_flops(SMALL, replace(t, accumulate=n)) for n in (1, 2, 5))
    assert two["mlp", "forward"] == 2 * one["mlp", "forward"] and five["mlp", "backward"] == 5 * one["mlp", "backward"]
    assert one["adamw", "update"] == five["adamw", "update"]


def test_this_machine_computes(monkeypatch):
    """By a small model as a whole, by a large one's MLP."""
    assert 1e5 < flops_per_second(SMALL, TrainConfig()) < 1e15
    monkeypatch.setattr(estimate, "mlp_per_second", lambda c, t: 5.0)
    assert flops_per_second(GPTConfig(), TrainConfig()) == 5.0
    assert flops_per_second(SMALL, TrainConfig()) > 5


def test_the_first_run_warms_up():
    waits = iter([0.3, 0.01, 0.01, 0.01])
    assert estimate.typical_time(lambda: estimate.time.sleep(next(waits))) < 0.2
