"""The estimate of what training takes: right for small models, and an error before a huge one is allocated."""
import pytest

from minillm import GPT, GPTConfig, TrainConfig
from minillm.train import memory

SHAPES = [GPTConfig(n_layer=3, n_head=2, n_embd=24, block_size=40, vocab_size=300), GPTConfig(n_layer=1, n_embd=12)]


@pytest.mark.parametrize("config", SHAPES)
def test_parameters_are_counted_as_they_are(config):
    assert memory.count_parameters(config) == GPT(config).params.flat.size


def test_too_large_a_model_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 ** 30)
    assert memory.check_memory(SHAPES[0], 8) == "0.0M parameters, about 0.0 GB to train"
    with pytest.raises(ValueError, match=r"123.7M parameters needs about 2.0 GB to train, and 1.1 GB are free: choose"):
        memory.check_memory(GPTConfig(block_size=64, n_layer=12), 1)
    with pytest.raises(ValueError, match="GB are free"):
        memory.check_memory(GPTConfig(n_layer=10 ** 12), 1)
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.check_memory(GPTConfig(n_layer=10 ** 6), 1)
