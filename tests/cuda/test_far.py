"""2^31 - 1 sequences on the emulator, all but the last left out: offsets and block numbers beyond 32 bits; and views
whose rows and heads lie so far apart, or that are not made of 16-byte chunks."""
import ctypes
import shutil

import far_views
import numpy as np
import pytest

MOST = 2 ** 31 - 1                                  # heads on grid.x

if not shutil.which("g++") or not far_views.CSRC.exists():
    pytest.skip("needs g++ and the sources in csrc", allow_module_level=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return far_views.build(tmp_path_factory.mktemp("far") / "far.so")


@pytest.fixture(scope="module")
def attention(library):
    function = library.attention
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_int, ctypes.c_int64] + [ctypes.c_void_p] * 4 + [ctypes.c_int] * 2

    def call(variant, B, T=70, HS=40):
        """(error text, out (T, HS), dqkv (T, 3 HS)) of the last of B sequences."""
        rng = np.random.default_rng(0)
        qkv, dout = (rng.standard_normal((T, width)).astype("float32") for width in (3 * HS, HS))
        out, dqkv = np.zeros_like(dout), np.zeros_like(qkv)
        text = function(variant, B, *(a.ctypes.data for a in (qkv, dout, out, dqkv)), T, HS).decode()
        return text, out, dqkv
    return call


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
def test_the_last_of_very_many(attention, variant):
    error, out, dqkv = attention(variant, 1)
    assert error == "" and np.isfinite(out).all() and out.any() and dqkv.any()
    far_error, far_out, far_dqkv = attention(variant, MOST)
    assert far_error == "" and np.array_equal(out, far_out) and np.array_equal(dqkv, far_dqkv)


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
def test_one_too_many(attention, variant):
    assert attention(variant, MOST + 1)[0] == f"B * n_head must be below 2^31: got {2 ** 31}"


@pytest.mark.parametrize("variant", far_views.TO_COMPARE)
def test_views_give_the_numbers_of_dense_arrays(library, variant):
    """On a stream of their own: the emulator tells of work that would run on another one without waiting."""
    assert far_views.fault(library, [variant]) == ""
