"""Attention with shared heads of keys, windows, sinks and a soft-cap on a GPU, tested on the emulator; and decoding.

Small sizes, gradients and bad arguments are tested where all backends are (tests/ops); here is what only tiles, chunks
of keys and arrays of the device have.
"""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.kernels.select import cuda

sim = cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)
OPTIONS = {"plain": {}, "window": {"window": 9}, "long window": {"window": 70}, "cap": {"softcap": 3.0},
           "sinks": {"sinks": np.array([0.5, -1, 2, 0], "float32")},
           "all": {"window": 40, "softcap": 5.0, "sinks": np.array([3, 0, -np.inf, 1], "float32")}}
steps = pytest.mark.parametrize("options, step", [*((name, "") for name in OPTIONS), ("all", "_1_naive")])


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype("float32")


def in_float64(options):
    return {name: value.astype("float64") if name == "sinks" else value for name, value in options.items()}


def grouped(backend, args, dout, options, step=""):
    forward, backward = (getattr(backend, f"grouped_attention_{way}{step}") for way in ("forward", "backward"))
    out, cache = forward(*args, 4, **options)
    return {f"{i}": a for i, a in enumerate((out, *backward(dout, cache)))}


@steps
def test_more_tokens_than_a_tile(options, step):
    """Two heads of keys for four of queries, over three tiles of keys, of which a window leaves out one."""
    args, dout = (normal(1, 77, 12), normal(1, 77, 6, seed=1), normal(1, 77, 6, seed=2)), normal(1, 77, 12, seed=3)
    args, options = tuple(3 * a for a in args), OPTIONS[options]
    want = grouped(reference, [a.astype("float64") for a in args], dout.astype("float64"), in_float64(options))
    for name, got in grouped(sim, args, dout, options, step).items():
        assert_close(name, got, want[name], "odd sizes float32")


@pytest.mark.parametrize("schedule", [42])
def test_any_schedule(schedule):
    args, dout = (normal(1, 67, 8), normal(1, 67, 4, seed=1), normal(1, 67, 4, seed=2)), normal(1, 67, 8, seed=3)
    want = grouped(sim, args, dout, OPTIONS["all"])
    q, k, v = cached(2, 300)
    decoded = sim.attention_decode(q, k, v)
    sim.set_schedule(schedule)
    assert_same_bits(grouped(sim, args, dout, OPTIONS["all"]), want)
    assert_same_bits(sim.attention_decode(q, k, v), decoded)


def test_what_a_window_leaves_out_may_be_anything():
    """Keys and values of NaN that no query sees reach nobody, though they lie in the same tile."""
    q, k, v = normal(1, 40, 8), normal(1, 40, 4, seed=1), normal(1, 40, 4, seed=2)
    want = sim.grouped_attention_forward(q, k, v, 4, window=5)[0]
    k[:, :10], v[:, :10] = np.nan, np.nan
    assert_same_bits(sim.grouped_attention_forward(q, k, v, 4, window=5)[0][:, 14:], want[:, 14:])


def cached(queries, keys, HS=5):
    return normal(2, 4, queries, HS), normal(2, 2, keys, HS, seed=1), normal(2, 2, keys, HS, seed=2)


@steps
@pytest.mark.parametrize("queries, keys", [(1, 600), (3, 257), (9, 80)])
def test_decoding_against_many_keys(queries, keys, options, step):
    """One chunk of keys (256) and more, some of which a window leaves out; and so many queries that tiles take them."""
    args, options = cached(queries, keys), OPTIONS[options]
    want = reference.attention_decode(*(a.astype("float64") for a in args), **in_float64(options))
    assert_close("out", getattr(sim, f"attention_decode{step}")(*args, **options), want, "odd sizes float32")


@pytest.mark.parametrize("HS", [1, 32, 33, 200, 256])
def test_decoding_of_any_head_size(HS):
    args = cached(1, 7, HS)
    want = reference.attention_decode(*(a.astype("float64") for a in args))
    assert_close("out", sim.attention_decode(*args), want, "odd sizes float32")


def test_a_sequence_decodes_to_the_same_bits_alone():
    q, k, v = cached(1, 300)
    whole = sim.attention_decode(q, k, v)
    assert_same_bits(sim.attention_decode(q[1:], k[1:], v[1:]), whole[1:])


def test_a_view_of_a_longer_cache():
    """On the host its numbers are gathered, on the device read where they lie."""
    q, k, v = cached(1, 50)
    want = sim.attention_decode(q, k[:, :, :33].copy(), v[:, :, :33].copy())
    assert_same_bits(sim.attention_decode(q, k[:, :, :33], v[:, :, :33]), want)
    dq, dk, dv = (sim.from_numpy(a) for a in (q, k, v))
    assert_same_bits(sim.attention_decode(dq, dk[:, :, :33], dv[:, :, :33]).numpy(), want)
    with pytest.raises(ValueError, match="k must be on the device"):
        sim.attention_decode(dq, k, dv)


def test_arrays_of_the_device():
    args, dout = (normal(1, 20, 8), normal(1, 20, 4, seed=1), normal(1, 20, 4, seed=2)), normal(1, 20, 8, seed=3)
    options = OPTIONS["sinks"]
    sinks = {"sinks": sim.from_numpy(options["sinks"])}
    there = grouped(sim, [sim.from_numpy(a) for a in args], sim.from_numpy(dout), sinks)
    assert_same_bits({name: a.numpy() for name, a in there.items()}, grouped(sim, args, dout, options))


def test_heads_that_are_too_large():
    with pytest.raises(ValueError, match="q must have at most 256 numbers a head: got 257"):
        sim.attention_decode(*cached(1, 3, 257))
    with pytest.raises(ValueError, match="q must have at most 256 numbers a head: got 300"):
        sim.grouped_attention_forward(normal(1, 2, 300), normal(1, 2, 300), normal(1, 2, 300), 1)
