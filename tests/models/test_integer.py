"""Integer arithmetic: the kernel equal to its NumPy definition, bit for bit, whatever the sizes, threads and batch."""
import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_same_bits

from minillm.kernels import select as registry
from minillm.kernels.select import select
from minillm.models.integer import BLOCK, blocks_of, integer_linear, rounded_rows
from minillm.models.quantized import Quantized, dequantized, to_int4, to_int8, with_panels

compiled = pytest.mark.skipif("cpu" not in BACKENDS, reason="kernels are not built")
# inputs, outputs, rows, group: blocks that are whole, cut short, and several in a group; panels and tiles with a rest
SIZES = [(256, 130, 9, 0), (256, 70, 14, 32), (512, 33, 5, 256), (48, 203, 5, 0), (50, 7, 1, 0), (200, 64, 3, 8),
         (130, 1, 600, 0), (4, 64, 2, 0), (2, 3, 2, 0), (384, 200, 6, 128), (384, 70, 8, 192), (240, 70, 11, 24),
         (72, 40, 16, 8), (264, 130, 13, 264), (264, 70, 7, 88)]


def sample(K, N, M, group, to=to_int8):
    """Activations with a large one, a block of zeros and very small numbers, and a weight with a channel of zeros."""
    rng = np.random.default_rng(K + N)
    weight, x = (rng.standard_normal(shape).astype("float32") for shape in ((K, N), (M, K)))
    weight[:, 0] = 0
    x[0, 1], x[-1, :BLOCK] = 1000, 0
    x[M // 2, K // 2:] *= np.float32(1e-36)
    return x, to(weight, group)


@compiled
@pytest.mark.parametrize("to", [to_int8, to_int4])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_kernel_is_the_definition(sizes, to):
    x, weight = sample(*sizes, to)
    bias = np.linspace(-1, 1, sizes[1], dtype="float32")
    assert_same_bits(registry._cpp.integer_linear(x, weight), integer_linear(x, weight))
    packed = with_panels({"w": weight}, select("cpu"))["w"]                             # as models have it
    assert_same_bits(registry._cpp.integer_linear(x, packed, bias), integer_linear(x, weight, bias))


@compiled
def test_the_largest_numbers_do_not_overflow():
    """All activations and weights at 127 in size, -128 too, which no weight of ours is, with both signs."""
    for value in (127, -127, -128):
        weight = Quantized(np.full((1024, 70), value, "int8"), np.ones((1, 70), "float32"))
        for x in (np.ones((3, 1024), "float32"), -np.ones((3, 1024), "float32")):
            got = registry._cpp.integer_linear(x, weight)
            assert_same_bits(got, integer_linear(x, weight))
            assert np.allclose(got, x.sum(axis=1)[0] * value)


@compiled
@pytest.mark.parametrize("to", [to_int8, to_int4])
def test_neither_threads_nor_the_batch_change_a_bit(to):
    x, weight = sample(256, 700, 40, 64, to)
    weight = with_panels({"w": weight}, select("cpu"))["w"]
    before, want = registry._cpp.max_threads(), registry._cpp.integer_linear(x, weight)
    try:
        for threads in (1, 2, 3):
            registry._cpp.set_threads(threads)
            assert_same_bits(registry._cpp.integer_linear(x, weight), want)
            for rows in (slice(0, 1), slice(3, 20), slice(39, 40)):
                assert_same_bits(registry._cpp.integer_linear(x[rows].copy(), weight), want[rows])
    finally:
        registry._cpp.set_threads(before)


def test_by_hand():
    """Two rows: the scale of the first is 1, so 2.5 becomes 2 and 3.5 becomes 4; a row of zeros stays one."""
    x = np.array([[127, 2.5, 3.5, -1], [0, 0, 0, 0]], "float32")
    weight = Quantized(np.array([[1, 0], [10, 0], [0, 10], [1, 1]], "int8"), np.array([[2, 0.5]], "float32"))
    assert integer_linear(x, weight).tolist() == [[2 * (127 + 20 - 1), 0.5 * (40 - 1)], [0, 0]]


def test_blocks():
    """None has more than BLOCK inputs, none crosses a group, and together they are all inputs."""
    for K, groups in ((256, 1), (300, 1), (512, 2), (48, 3), (768, 24), (5, 1)):
        blocks = blocks_of(K, groups)
        assert np.concatenate([np.arange(K)[inputs] for _, inputs in blocks]).tolist() == list(range(K))
        for g, inputs in blocks:
            assert inputs.stop - inputs.start <= BLOCK
            assert g == inputs.start * groups // K == (inputs.stop - 1) * groups // K


def test_activations_are_off_by_half_a_step_and_a_large_one_spoils_its_block_only():
    x, weight = sample(384, 40, 6, 0)
    exact = x.astype("float64") @ dequantized(weight)
    assert np.abs(integer_linear(x, weight) - exact)[1:5].max() < 0.02 * np.abs(exact[1:5]).max()
    q, scales = rounded_rows(x[:, :BLOCK])
    assert np.all(np.abs(q * scales[:, None] - x[:, :BLOCK]) <= 0.5001 * scales[:, None])
    small = x.copy()
    small[0, 1] = 0                                                     # the error that the 1000 makes
    change = integer_linear(x, weight)[0] - 1000 * dequantized(weight)[1] - integer_linear(small, weight)[0]
    spoiled = 1000 / 254 * np.sqrt(BLOCK) * np.abs(dequantized(weight)).max()
    assert np.abs(change).max() < spoiled


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(value):
    """The row has NaN, the others their numbers."""
    x, weight = sample(256, 40, 5, 0)
    x[2, 200] = value
    for product in (integer_linear, *([registry._cpp.integer_linear] if "cpu" in BACKENDS else [])):
        out = product(x, weight)
        assert np.isnan(out[2]).all() and np.isfinite(np.delete(out, 2, axis=0)).all()


@compiled
def test_bad_arguments_are_named():
    x, weight = sample(48, 9, 2, 0)
    for arguments, words in (((x.astype("float64"), weight), "x must have dtype float32"),
                             ((x[:, :40].copy(), weight), "weight must have shape"),
                             ((x, Quantized(weight.values, weight.scales[:, :5].copy())), "scales must have shape"),
                             ((x, weight, np.ones(8, "float32")), "bias must have shape"),
                             ((x, weight, None, "relu"), "activation must be"),
                             ((x, Quantized(*weight[:2], np.ones(7, "uint8"))), "panels must have shape"),
                             ((x, Quantized(np.ones((48, 9), "uint16"), None)), "int8 or int4")):
        with pytest.raises(ValueError, match=words):
            registry._cpp.integer_linear(*arguments)
