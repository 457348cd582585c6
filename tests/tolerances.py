"""Every tolerance of the tests, in one table, each with the reason for its size; and none: `assert_same_bits`.

A number passes when |got - want| <= atol * max(1, largest |want| of the tensor) + rtol * |want|. The first term is
scaled by the tensor because rounding in a sum is proportional to its largest terms, not to what is left of them.
Unit roundoff: float32 6e-8, float64 1.1e-16, bfloat16 3.9e-3.
"""
from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    atol: float
    rtol: float

    @property
    def both(self):
        """As keyword arguments of gradcheck and check_model."""
        return self._asdict()


TOLERANCES = {
    # Central differences, step 1e-6: rounding of a sum near 100 is 1e-14, over 2e-6 gives 1e-8; curvature gives 1e-12.
    "central": Tolerance(1e-7, 1e-6),
    # Complex step subtracts nothing: rounding alone, some hundred operations of 1e-16.
    "complex": Tolerance(1e-12, 1e-10),
    # A whole model's loss is about 4 and passes through thousands of roundings: 4e-15 over 2e-6 is 2e-9.
    "model central": Tolerance(1e-7, 1e-5),
    "model complex": Tolerance(1e-12, 1e-9),
    # Kernel against reference: the same formula in another order of summation, sums of at most some hundred terms;
    # a polynomial exp or tanh adds a few units in the last place.
    "reference float32": Tolerance(3e-6, 3e-6),
    "reference float64": Tolerance(1e-14, 1e-13),
    # Kernels that multiply in bfloat16, 8 bits of mantissa: each operand is off by up to 2^-9 of itself, a product by
    # 2^-8 = 4e-3. In a sum the errors are random and stay near that share of the largest sum; six roundings in a row
    # (mlp: dout, proj_weight, h, the slope at it, dh, x) can reach 6 x 2^-8. Sums are float32. test_bf16.py is
    # stricter.
    "reference bfloat16": Tolerance(2.4e-2, 2.4e-2),
    "odd sizes bfloat16": Tolerance(2.4e-2, 2.4e-2),
    "regrouped bfloat16": Tolerance(2.4e-2, 2.4e-2),
    # The same at sizes down to C = 1, where LayerNorm's rstd reaches 1/sqrt(eps) = 316 and multiplies the rounding of
    # terms of size 9 that cancel: 316 * 9 * 6e-8.
    "odd sizes float32": Tolerance(2e-4, 3e-6),
    "odd sizes float64": Tolerance(4e-13, 1e-13),
    # The same arithmetic regrouped by the test itself (a*f(d1) + b*f(d2), a hand-written loop): a few roundings.
    "regrouped float32": Tolerance(3e-6, 3e-6),
    "regrouped float64": Tolerance(1e-14, 1e-13),
    # Logits near 1e4: the cached logsumexp is rounded to half a unit in the last place, 5e-4 in float32 (1e-12 in
    # float64), and that is the relative error of every probability.
    "huge logits float32": Tolerance(1e-3, 1e-3),
    "huge logits float64": Tolerance(2e-12, 2e-12),
    # The same model by another road (cache, batch, micro-batches): BLAS may sum another shape in another order.
    "same model": Tolerance(1e-12, 1e-12),
    # A closed form worked out by hand, computed by a handful of operations.
    "by hand": Tolerance(1e-14, 1e-14),
}


def assert_close(name, got, want, tolerance):
    """Compare two arrays; the message names the tensor, its worst element and both values. NaN equals only NaN."""
    got, want, (atol, rtol) = np.asarray(got), np.asarray(want), TOLERANCES[tolerance]
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    if want.size == 0:
        return
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{name}: NaN in different places"
    error, size = np.abs(np.nan_to_num(got - want)), np.abs(np.nan_to_num(want))
    excess = error - (atol * max(1, size.max()) + rtol * size)
    worst = np.unravel_index(excess.argmax(), want.shape)
    index = tuple(map(int, worst))
    assert excess[worst] <= 0, (f"{name}{list(index)}: got {got[worst]!r}, expected {want[worst]!r}, "
                                f"error {error[worst]:.2e} ({tolerance})")


def same_bits(one, other):
    """Two arrays, or numbers, of one dtype, shape and bytes: 0.0 is not -0.0, and a NaN is the NaN of the same bits."""
    one, other = map(as_array, (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def assert_same_bits(got, want, name="array"):
    """The same of all arrays, numbers and files' bytes in lists, tuples and dicts; the message names the first element
    that differs.

    Compare what is large by this, not by `assert a.tobytes() == b.tobytes()`: there pytest spells out, where CI is set,
    how megabytes differ, and the test ends by its timeout.
    """
    if isinstance(want, (list, tuple, dict)):
        keys, wanted = (tree.keys() if isinstance(tree, dict) else range(len(tree)) for tree in (got, want))
        assert keys == wanted, f"{name}: parts {list(keys)}, expected {list(wanted)}"
        for key in keys:
            assert_same_bits(got[key], want[key], f"{name}[{key!r}]")
        return
    got, want = map(as_array, (got, want))
    assert got.dtype == want.dtype and got.shape == want.shape, (
        f"{name}: {got.dtype} {got.shape}, expected {want.dtype} {want.shape}")
    if not same_bits(got, want):
        raise AssertionError(first_difference(got, want, name))


def as_array(value):
    return np.frombuffer(value, "uint8") if isinstance(value, bytes) else np.asarray(value)


def first_difference(got, want, name):
    """Where, how many, and both values with their bits, for two arrays of one dtype and shape that differ."""
    bits = [np.frombuffer(array.tobytes(), "uint8").reshape(-1, array.itemsize) for array in (got, want)]
    places = np.flatnonzero((bits[0] != bits[1]).any(axis=1))
    index = tuple(map(int, np.unravel_index(places[0], want.shape)))
    seen = [f"{array[index]!r} (bits {raw[places[0]][::-1].tobytes().hex()})" for array, raw in zip((got, want), bits)]
    return f"{name}{list(index)}: got {seen[0]}, expected {seen[1]}; {len(places)} of {want.size} differ"
