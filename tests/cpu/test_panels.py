"""Weights in panels: the kernels give the bits that they give for the matrix itself, whatever the sizes and threads."""
import numpy as np
import pytest
from test_gemm import threads  # noqa: F401  (a fixture)
from tolerances import assert_same_bits

from minillm.kernels import select as registry
from minillm.kernels.select import choices, select
from minillm.models.panels import Matrix, all_in_panels, columns_of
from minillm.ops.bfloat16 import bfloat16_bits

KERNELS = registry._cpp
if "cpu/bf16" not in choices("linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

# rows, inputs, outputs: one row and as many as a step of decoding has, a prompt; panels and blocks of K with a rest
SIZES = [(1, 1, 1), (1, 384, 48), (3, 33, 47), (8, 385, 49), (9, 70, 200), (16, 1100, 97), (17, 64, 50),
         (40, 1057, 130)]
ACTIVATIONS = {"": lambda x: x, "gelu": lambda x: select("cpu").gelu_forward(x)[0],
               "gelu_exact": lambda x: select("cpu").gelu_exact_forward(x)[0]}
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_form = pytest.mark.parametrize("form", ["float32", "bfloat16"])


def sample(size, form):
    """x (M, K), a matrix (K, N) of this form, its panels, and a bias."""
    rng, (M, K, N) = np.random.default_rng(0), size
    x, matrix, bias = (rng.standard_normal(shape).astype("float32") for shape in ((M, K), (K, N), N))
    matrix = bfloat16_bits(matrix) if form == "bfloat16" else matrix
    return x, matrix, laid_out(matrix, form), bias


def laid_out(matrix, form, transposed=False):
    return all_in_panels({"w": Matrix(matrix, transposed)}, form, select("cpu"))["w"]


@every_form
@every_size
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_panels_give_the_bits_of_the_matrix(size, form, activation):
    x, matrix, panels, bias = sample(size, form)
    ops = select("cpu" if form == "float32" else "cpu/bf16")
    want = ACTIVATIONS[activation](ops.linear_forward(x, matrix, bias)[0])
    assert_same_bits(KERNELS.panel_linear(x, panels, bias, activation), want)
    without = ops.linear_forward(x, matrix, np.zeros_like(bias))[0]
    assert_same_bits(KERNELS.panel_linear(x, panels) + np.float32(0), without + np.float32(0))


@every_form
@every_size
def test_panels_are_the_matrix(size, form):
    _, matrix, panels, _ = sample(size, form)
    want = matrix if form == "float32" else (matrix.astype("uint32") << 16).view("float32")
    assert_same_bits(columns_of(panels), want)
    some = np.random.default_rng(1).integers(0, size[2], 5)
    assert_same_bits(columns_of(panels, some), want[:, some])
    across = laid_out(np.ascontiguousarray(matrix.T), form, transposed=True)
    assert_same_bits(across.panels, panels.panels)
    assert across[1:] == panels[1:] and panels.panels.ctypes.data % 64 == 0
    if form == "bfloat16":                                                  # from float32 that are bfloat16, too
        assert_same_bits(laid_out(want, form).panels, panels.panels)


@every_form
@pytest.mark.parametrize("M", [1, 11, 40])
def test_threads_and_the_batch_change_no_bit(threads, form, M):         # noqa: F811
    x, _, panels, bias = sample((M, 500, 777), form)
    want = KERNELS.panel_linear(x, panels, bias)
    for n in (1, 2, 3):
        KERNELS.set_threads(n)
        assert_same_bits(KERNELS.panel_linear(x, panels, bias), want)
        assert_same_bits(KERNELS.panel_linear(x[M // 2:M // 2 + 1].copy(), panels, bias), want[M // 2:M // 2 + 1])


@every_form
def test_what_lies_beyond_the_matrix_is_never_multiplied(form):
    """Infinity and NaN in x meet no zero of the padding: 0 * inf would be NaN."""
    x, matrix, panels, bias = sample((2, 33, 49), form)
    x[0, 5], x[1, 32] = np.inf, np.nan
    want = select("cpu" if form == "float32" else "cpu/bf16").linear_forward(x, matrix, bias)[0]
    assert np.array_equal(KERNELS.panel_linear(x, panels, bias), want, equal_nan=True)


@every_form
def test_wrong_panels_are_refused(form):
    x, matrix, panels, bias = sample((2, 33, 49), form)
    for wrong, words in ((panels._replace(inputs=34), r"shape \(33, any\)"), (panels._replace(outputs=500), "shape"),
                         (panels._replace(panels=panels.panels[:1].copy()), "shape"),
                         (panels._replace(panels=panels.panels.astype("float64")), "weight"),
                         ((matrix, None, None), "weight|panels"), (panels._replace(outputs=-1), "shape")):
        with pytest.raises((ValueError, TypeError), match=words):
            KERNELS.panel_linear(x, wrong, bias)
    with pytest.raises(ValueError, match="activation must be"):
        KERNELS.panel_linear(x, panels, bias, "relu")
    with pytest.raises(ValueError, match="numbers must be"):
        KERNELS.panel_columns("int8")
