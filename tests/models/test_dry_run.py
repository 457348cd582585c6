"""A dry run against the real thing: the FLOPs of each op, what is kept, when it is freed; nothing is computed."""
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cases import BACKENDS

from minillm.config import GPTConfig
from minillm.kernels.select import OPS, Dims, choices, select
from minillm.models.dry_run import ARRAYS, DryCache, Meter, dims_of, dry_model, dry_step, metered, shape_of, sizes_of
from minillm.models.gpt2 import GPT
from minillm.models.params import gpt_shapes

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=24, block_size=16, vocab_size=50, dropout=0.2)
ALL = BACKENDS + [backend for backend in ("cpu/bf16",) if backend in choices("linear")]
LARGE = GPTConfig(n_layer=48, n_head=25, n_embd=1600)


def real_flops(config, backend, recompute=False):
    """What a real forward and backward add up to."""
    meter = Meter()
    model = GPT(config, ops=metered(select(backend), meter))
    model.recompute = recompute
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, config.block_size))
    model.loss_and_grads(tokens, tokens, key=(0, 0, 0))
    return meter.flops


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("recompute", [False, True])
def test_flops_are_those_of_a_real_step(backend, recompute):
    dry = dry_step(CONFIG, select(backend), 2, recompute).flops
    real = real_flops(CONFIG, backend, recompute)
    assert {key: count for key, count in dry.items() if key[1] != "update"} == real
    assert (("mlp", "recomputation") in real) is recompute


def test_flops_add_up_to_the_formula():
    """6 FLOPs a parameter that multiplies and token, 2 more for the head's second logits, and attention's T^2."""
    B, T, V, C = 2, CONFIG.block_size, CONFIG.vocab_size, CONFIG.n_embd
    flops = dry_step(CONFIG, select("numpy"), B).flops
    for op, multiplied in (("mlp", 8 * C * C), ("linear", 4 * C * C)):
        assert flops[op, "forward"] + flops[op, "backward"] == 6 * B * T * multiplied * CONFIG.n_layer
    assert flops["linear_cross_entropy", "forward"] + flops["linear_cross_entropy", "backward"] == 8 * B * T * V * C
    assert flops["attention", "forward"] == 2 * B * T * T * C * CONFIG.n_layer


def test_decoding_and_prefill_are_counted_alike():
    """T tokens decoded one by one cost what a prefill of them costs, but for the logits of each."""
    def flops(tokens, length):
        meter = Meter()
        model, cache = dry_model(CONFIG, select("numpy"), meter), DryCache(CONFIG, 1, length)
        model.decode(np.zeros((1, tokens), int), cache, last=True)
        return meter.flops
    one_by_one, at_once = [flops(1, length) for length in range(16)], flops(16, 0)
    assert sum(part["mlp", "forward"] for part in one_by_one) == at_once["mlp", "forward"]
    attended = sum(part["attention_decode", "forward"] for part in one_by_one)
    assert at_once["attention_decode", "forward"] == pytest.approx(attended, rel=1 / 16)
    assert flops(1, 15)["attention_decode", "forward"] == 4 * 16 * CONFIG.n_embd * CONFIG.n_layer


def test_what_the_backward_passed_is_free():
    meter = dry_step(CONFIG, select("numpy"), 2)
    parameters = sum(math.prod(shape) for shape in gpt_shapes(CONFIG).values())
    assert meter.bytes["activations"] == meter.bytes["logits"] == 0
    assert meter.bytes["gradients"] == 4 * parameters


def test_recomputation_keeps_a_twelfth_of_each_block():
    deep = replace(LARGE, block_size=64)
    more = replace(deep, n_layer=49)
    for recompute, floats in ((False, 12), (True, 1)):
        one, other = (dry_step(c, select("numpy"), 1, recompute).most[ARRAYS] for c in (deep, more))
        assert (other - one) / (4 * 64 * deep.n_embd) == pytest.approx(floats, rel=0.5 if not recompute else 0.01)


def test_one_block_at_a_time_is_made_again():
    """6 inputs, one block of 12 and NumPy's 4 more, gradients and what is under way: not a second block."""
    c = replace(LARGE, n_layer=6, block_size=64)
    assert 22 < dry_step(c, select("numpy"), 1, True).most[ARRAYS] / (4 * 64 * c.n_embd) < 32


def test_a_large_model_is_run_dry_in_little_memory():
    tracemalloc.start()
    try:
        meter = dry_step(LARGE, select("auto"), 64, True)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert meter.at_peak.total() > 2e10


def test_sizes_of_a_call():
    qkv = shape_of((2, 5, 24))
    assert sizes_of(OPS["attention"], {"qkv": qkv, "n_head": 2}) == {"B": 2, "T": 5, "C": 8, "NH": 2}
    assert dims_of({"N": 10, "C": 4, "V": 7}) == Dims(1, 10, 4, 1, 7, N=10)


def test_shapes_stay_shapes():
    meter = Meter()
    x = shape_of((10 ** 6, 10 ** 6), np.float32, meter)
    view = x.reshape(-1)[5:]
    y = x + x
    assert meter.bytes["activations"] == 8 * 10 ** 12 and y.strides == (0, 0)
    del x
    assert meter.bytes["activations"] == 8 * 10 ** 12
    del view, y
    assert meter.bytes["activations"] == 0
