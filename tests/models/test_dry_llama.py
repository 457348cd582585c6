"""A dry run of a Llama against a real step: FLOPs to the last one, arrays within a few percent; and its plan."""
from dataclasses import replace

import pytest
from cases import BACKENDS

from minillm.config import TrainConfig
from minillm.kernels.select import choices
from minillm.models.llama_files import ARCHITECTURES
from minillm.models.load import fresh_config
from minillm.train.estimate import describe_run
from minillm.workbench.plan import Question, plan
from minillm.workbench.plan_text import describe
from minillm.workbench.plan_verify import verify

SIZES = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "n_inner": 88, "block_size": 32, "vocab_size": 300}
ALL = BACKENDS + [backend for backend in ("cpu/bf16",) if backend in choices("projection")]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("values", [{"family": family} for family in ARCHITECTURES] + [
    {"family": "llama", "qkv_bias": True, "o_bias": True, "mlp_bias": True, "tied": False},
    {"family": "gemma2", "logit_cap": 5.0}], ids=str)
def test_flops_are_exact_and_arrays_are_those_planned(backend, values):
    c, t = fresh_config(SIZES | values), TrainConfig(batch_size=4, accumulate=2, backend=backend, optimizer="muon")
    found = verify(c, t)
    assert found["flops"]["equal"] and found["arrays"]["within"]


def test_fewer_heads_of_keys_take_a_smaller_cache_and_fewer_flops():
    few, many = (plan(Question(replace(fresh_config(SIZES | {"family": "qwen3"}), n_kv_head=n), TrainConfig()))
                 for n in (1, 4))
    cache = [found["memory"]["serving"]["float32"]["kv_cache"] for found in (few, many)]
    assert 4 * cache[0] == cache[1] == 8 * 2 * 32 * 4 * 8
    assert few["flops"]["decode"]["decode"]["projection"] < many["flops"]["decode"]["decode"]["projection"]
    assert "n_layer=2" in describe(few)


@pytest.mark.parametrize("family, full", [("gemma2", (1,)), ("qwen2", (0,))])
def test_layers_with_and_without_a_window_are_planned(family, full):
    c = fresh_config(SIZES | {"family": family, "window": 8, "full_layers": full})
    t = TrainConfig(batch_size=1)
    assert verify(c, t)["flops"]["equal"] and plan(Question(c, t))["memory"]["training"]["block"]
    assert describe_run(c, t).startswith("model ")
