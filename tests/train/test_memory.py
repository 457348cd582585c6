"""The estimate of what training takes: by category, and an error with a remedy before a huge model is allocated."""
from dataclasses import replace

import pytest

from minillm import GPT, GPTConfig, TrainConfig
from minillm.storage import free_memory
from minillm.train import memory

SHAPES = [GPTConfig(n_layer=3, n_head=2, n_embd=24, block_size=40, vocab_size=300), GPTConfig(n_layer=1, n_embd=12)]
GIB = 2 ** 30


@pytest.mark.parametrize("config", SHAPES)
def test_parameters_are_counted_as_they_are(config):
    assert memory.count_parameters(config) == GPT(config).params.flat.size


def test_categories():
    c, t = GPTConfig(), TrainConfig(batch_size=2)
    parameters, found = memory.count_parameters(c), memory.step_memory(c, t)
    assert tuple(found) == memory.CATEGORIES
    assert found["weights"] >= 4 * parameters and found["moments"] == 8 * parameters
    assert memory.step_memory(c, t, processes=4)["moments"] == 2 * parameters
    again = memory.step_memory(c, replace(t, batch_size=16, recompute=True))
    assert again["activations"] < memory.step_memory(c, replace(t, batch_size=16))["activations"] / 4
    assert memory.dry_run(c, t).most["gradients"] == 4 * parameters


def test_several_micro_batches_keep_a_sum_beside_the_gradients_of_one():
    c, t = GPTConfig(), TrainConfig(batch_size=4)
    once, more = (sum(memory.step_memory(c, replace(t, accumulate=n)).values()) for n in (1, 3))
    assert more == once + 4 * memory.count_parameters(c)


def refusal(c, t):
    with pytest.raises(ValueError, match="GB are free: ") as error:
        memory.check_memory(c, t)
    return str(error.value).split("GB are free: ")[1]


def test_too_large_a_model_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 4 * GIB)
    small = memory.check_memory(SHAPES[0], TrainConfig(batch_size=8))
    assert small.startswith("0.0M parameters, about 0.0 GB to train")
    said = refusal(GPTConfig(), TrainConfig(batch_size=64))
    batch = int(said.split("batch_size=")[1].split()[0])
    for size, fits in ((batch, True), (batch + 1, False)):
        used = sum(memory.step_memory(GPTConfig(), TrainConfig(batch_size=size, accumulate=2)).values())
        assert (used <= 4 * GIB) is fits
    assert f"train.accumulate={-(-64 // batch)}" in said


def test_recomputation_is_a_remedy(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: int(2.4e9))
    assert refusal(GPTConfig(block_size=4096), TrainConfig(batch_size=1)).startswith("train.recompute=true")


def test_a_smaller_model_is_the_last_remedy(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 12 * GIB)
    said = refusal(GPTConfig(n_layer=48, n_head=25, n_embd=1600), TrainConfig())
    assert "smaller n_layer" in said and "n_layer=23 would fit" in said
    assert "would fit" not in refusal(GPTConfig(n_embd=12 * 10 ** 5), TrainConfig())
    refusal(GPTConfig(n_layer=10 ** 12), TrainConfig())
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.check_memory(GPTConfig(n_layer=10 ** 6), TrainConfig())


def test_a_limit_of_the_address_space_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (GIB * 10 ** 6, -1))
    assert next(free_memory.address_space()) < GIB * 10 ** 6
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, -1))
    assert not list(free_memory.address_space())
