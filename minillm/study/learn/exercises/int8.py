"""Weight-only int8 quantization.

Decoding reads every weight once for each token and is memory-bandwidth bound: weights of one byte can be four times as
fast as of four. Each column of a matrix (K, N), inputs by outputs, gets a scale of its own, so that its largest number
becomes 127:

    scale = largest |w| of the column / 127          values = w / scale, rounded to the nearest integer
    what it stands for: values * scale               off by at most half a scale

    quantize(matrix)               (K, N) float32 -> values (K, N) int8 in [-127, 127], scales (N,) float32
    dequantize(values, scales)     -> (K, N) float32
    matmul(x, values, scales)      x (T, K) float32 -> x @ the matrix that they stand for, (T, N) float32, without
                                   making that matrix: scales are constant along what is summed over

Rounding is np.rint, halves to even. A column of zeros has scale 0 and values 0. Nothing may wrap: 128 as int8 is -128.

Source: Dettmers et al. 2022, arXiv 2208.07339, section 2.
"""
import numpy as np

from ....models import quantized
from ..exercise import Exercise
from ..rules import by_cases


def quantize(matrix):
    """matrix (K, N) float32 -> values (K, N) int8, scales (N,) float32."""
    scales = np.abs(matrix).max(axis=0) / np.float32(127)
    safe = np.where(scales > 0, scales, np.float32(1))                   # a column of zeros stays zeros
    return np.clip(np.rint(matrix / safe), -127, 127).astype(np.int8), scales


def dequantize(values, scales):
    """values (K, N) int8, scales (N,) float32 -> (K, N) float32."""
    return values * scales


def matmul(x, values, scales):
    """x (T, K) float32 -> x @ dequantize(values, scales), (T, N) float32, the scales taken out of the sum."""
    return (x @ values.astype(np.float32)) * scales


def _divides(quantize):
    """Whether a column of zeros can be divided."""
    try:
        with np.errstate(divide="raise", invalid="raise"):
            return quantize(np.zeros((2, 1), np.float32)) is not None
    except FloatingPointError:
        return False


def _cases(yours):
    """Scales, rounding, signs, zeros; then the way back, and the product."""
    def case(rule, matrix, which):
        matrix = np.array(matrix, np.float32)
        values, scales = quantized.to_int8(matrix)[:2]
        return f"quantize: {rule}", yours.quantize(matrix.copy())[which], (values, scales[0])[which], 1e-6

    plain = [[127.0, 1.0], [-64.0, -1.0], [3.0, 0.0]]
    yield case("one scale for each column, its largest |w| over 127", plain, 1)
    yield case("the largest of a column becomes 127", plain, 0)
    yield case("the largest |w| counts, be it negative: the scale is |w| / 127", [[1.0], [-254.0], [2.0]], 1)
    yield case("round to nearest, not towards zero or down", [[127.0], [1.75], [-1.75], [0.75]], 0)
    yield case("halves are rounded to even, as np.rint does", [[127.0], [0.5], [1.5], [-2.5]], 0)
    yield case("a column of zeros has values 0", [[0.0, 1.0], [0.0, 2.0]], 0)
    yield "quantize: a column of zeros must not be divided by its scale, 0: NaN has no int8", _divides(yours.quantize)
    yield case("a column of zeros has scale 0", [[0.0, 1.0], [0.0, 2.0]], 1)
    rng = np.random.default_rng(9)
    matrix = rng.standard_normal((32, 6)).astype(np.float32) * np.array([1e-3, 1, 30, 1e3, 1e-8, 1], np.float32)
    yield case("columns of very different sizes", matrix, 0)
    yield case("columns of very different sizes", matrix, 1)
    stored = quantized.to_int8(matrix)
    values, scales = stored.values, stored.scales[0]
    whole = quantized.dequantized(stored)
    yield "dequantize: each value times the scale of its column, float32", yours.dequantize(values, scales), whole, 1e-6
    yield ("dequantize after quantize: off by at most half a scale", bool(np.all(
        np.abs(yours.dequantize(*yours.quantize(matrix)) - matrix) <= 0.501 * scales)))
    x = rng.standard_normal((3, 32)).astype(np.float32)
    # each number of the sum is rounded in float32, and the sum may cancel: so not relative to its result
    want = np.round(x.astype(np.float64) @ whole.astype(np.float64) / (32 * scales), 3)
    got = yours.matmul(x.copy(), values.copy(), scales.copy())
    yield "matmul: a float32 array (T, N)", isinstance(got, np.ndarray) and (got.shape, got.dtype) == ((3, 6), x.dtype)
    yield "matmul: x @ values, then each column times its scale, once", np.abs(got / (32 * scales) - want).max() < 2e-3
    yield "matmul: int8 must not be multiplied as int8, where sums wrap: convert to float32", \
        yours.matmul(np.full((1, 8), 100, np.float32), np.full((8, 1), 127, np.int8), np.ones(1, np.float32)), \
        np.full((1, 1), 101600, np.float32)


EXERCISE = Exercise(
    __file__, solve=("quantize", "dequantize", "matmul"), needs=("linear_forward",),
    checks=by_cases(_cases),
    hints=("np.abs(matrix).max(axis=0) is the largest of each column; over np.float32(127) it is the scale.",
           "Divide by the scale, or by 1 where it is 0: np.where(scales > 0, scales, np.float32(1)).",
           "np.rint, then np.clip to [-127, 127], which rounding could exceed; then astype(np.int8).",
           "sum over k of x[k] * values[k, n] * scales[n] = scales[n] * sum over k of x[k] * values[k, n].",
           "x @ values needs values in float32: astype(np.float32)."))
