"""What `minillm train` says before a run."""
from dataclasses import replace

from minillm.config import GPTConfig, TrainConfig
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


def test_this_machine_computes():
    assert 1e6 < flops_per_second(SMALL, TrainConfig()) < 1e15
