"""`minillm plan --verify`: a real step holds its plan; and the check can fail."""
import json
import subprocess
import sys

import pytest
from cases import BACKENDS

from minillm.config import GPTConfig, LlamaConfig, TrainConfig
from minillm.kernels.select import choices
from minillm.train.optim import AdamW
from minillm.workbench import plan_verify
from minillm.workbench.plan_verify import verify

SMALL = GPTConfig(n_layer=3, n_head=2, n_embd=64, block_size=64, vocab_size=300, dropout=0.1)
COMPILED = [b for b in (*BACKENDS, "cpu/bf16") if b in choices("linear") and b != "numpy"]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend", COMPILED)
def test_flops_are_exact_and_arrays_are_those_planned(backend, recompute):
    found = verify(SMALL, TrainConfig(batch_size=4, accumulate=3, recompute=recompute, backend=backend))
    assert found["flops"]["equal"] and found["flops"]["planned"] == found["flops"]["counted"] > 0
    assert abs(found["arrays"]["error"]) < 0.02
    assert found["right"] and found["coarse"]


@pytest.mark.skipif(not COMPILED, reason="no kernels are built")
@pytest.mark.parametrize("recompute", [False, True])
def test_a_llama_holds_its_plan(recompute):
    """With recomputation the most are alive in the backward, which adds up what came along several projections."""
    c = LlamaConfig(family="qwen3", qk_norm=True, n_layer=3, n_head=4, n_kv_head=2, head_dim=16, n_embd=64, n_inner=160,
                    block_size=64, vocab_size=300)
    found = verify(c, TrainConfig(batch_size=4, recompute=recompute, backend="cpu"))
    assert found["flops"]["equal"] and abs(found["arrays"]["error"]) < 0.03, found


def test_numpy_is_counted_too():
    assert verify(SMALL, TrainConfig(batch_size=4, backend="numpy"))["flops"]["equal"]


@pytest.mark.skipif(not sys.platform.startswith("linux") or not COMPILED, reason="needs /proc and compiled kernels")
def test_resident_memory_of_a_fresh_process():
    """A model large enough to be seen among pages of 2 MB and Python's own memory."""
    sets = ["n_layer=3", "n_head=6", "n_embd=384", "block_size=128", "vocab_size=8192", "batch_size=8", "backend=cpu"]
    done = subprocess.run([sys.executable, "-m", "minillm", "plan", "--verify", "--json",
                           *(word for name in sets for word in ("--set", name))], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and not found["coarse"], done.stderr
    assert abs(found["memory"]["error"]) <= 0.05, found


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_gradients_without_memory_are_not_added_up_before_the_first_step(monkeypatch, accumulate):
    """The system gives pages of zeros to who reads there; lent to the arena, they were measured as memory (25 MB of 500
    from three micro-batches on)."""
    ready, micro_gradients, ended = [], AdamW.micro_gradients, []

    def watched(self, count):
        for micro, grads in micro_gradients(self, count):
            yield micro, grads
            ended.append(micro)

    def first_step(model, optimizer, data, t):
        ready.append(optimizer.part is not None)
        raise KeyboardInterrupt
    monkeypatch.setattr(AdamW, "micro_gradients", watched)
    monkeypatch.setattr(plan_verify, "step", first_step)
    with pytest.raises(KeyboardInterrupt):
        verify(SMALL, TrainConfig(batch_size=1, accumulate=accumulate))
    assert ready == [accumulate > 1] and ended == [0]


def test_it_can_fail(monkeypatch):
    monkeypatch.setattr(plan_verify, "step_flops", lambda c, t: type(plan_verify.Meter().flops)())
    assert not verify(SMALL, TrainConfig(batch_size=2))["right"]


def test_what_does_not_fit_is_not_tried(monkeypatch):
    from minillm.train import memory
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 ** 9)
    with pytest.raises(ValueError, match="1.0 GB are free"):
        verify(GPTConfig(), TrainConfig())
