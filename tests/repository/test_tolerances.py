"""How the tests compare arrays, tested: what is told apart, and that a failure says where, at once."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_same_bits

X = np.arange(6.0).reshape(2, 3)
NAN, OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], "uint32").view("float32")


@pytest.mark.parametrize("got, want", [
    (X, X.T.copy().T), (X[:, :0], X[:, :0]), (NAN, NAN), ([X, (1, 2.5)], [X.copy(), (1, 2.5)]),
    ({"a": X, "b": X}, {"b": X, "a": X}), (b"ab\0", b"ab\0")], ids=["order", "empty", "NaN", "nested", "dict", "bytes"])
def test_equal(got, want):
    assert_same_bits(got, want)


@pytest.mark.parametrize("got, want, words", [
    (X.reshape(3, 2), X, r"array: float64 \(3, 2\), expected float64 \(2, 3\)"),
    (X.astype("float32"), X, r"array: float32 \(2, 3\), expected float64"),
    (X.astype("int64").view("float64"), X,
     r"array\[0, 1\]: got .*5e-324.* \(bits 0{15}1\), expected .*1\.0.*; 5 of 6 differ"),
    (np.float32(-0.0), np.float32(0), r"array\[\]: got .*-0.0.* \(bits 80000000\), expected .*0.0"),
    (OTHER_NAN, NAN, r"\(bits 7fc00001\), expected .*\(bits 7fc00000\); 1 of 1"),
    (b"abc", b"axc", r"array\[1\]: got .*98.*, expected .*120"),
    (b"ab", b"ab\0", r"uint8 \(2,\), expected uint8 \(3,\)"),
    ([X, X], [X], r"parts \[0, 1\], expected \[0\]"), ({"a": X}, {"b": X}, r"parts \['a'\], expected \['b'\]"),
    ({"a": [X, X]}, {"a": [X, X + 1]}, r"array\['a'\]\[1\]\[0, 0\]: got")],
    ids=["shape", "dtype", "values", "zero", "NaN", "bytes", "more bytes", "length", "names", "nested"])
def test_what_differs_is_named(got, want, words):
    with pytest.raises(AssertionError, match=words):
        assert_same_bits(got, want)


FAILING = """
import numpy as np
from tolerances import assert_same_bits

def test_this_fails():
    got = np.random.default_rng(0).standard_normal(1_000_000).astype("float32")
    want = np.roll(got, 1)
    want[0] = got[0]
    assert_same_bits(got, want)
"""


def test_a_failure_on_four_megabytes_is_quick_where_ci_is_set(tmp_path):
    """As bytes compared by ==, pytest would need minutes to spell out the difference."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "--timeout=20", "test_failing.py"], cwd=tmp_path,
                         env=os.environ | {"CI": "true", "PYTHONPATH": paths}, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "array[1]: got " in run.stdout and "999999 of 1000000 differ" in run.stdout and len(run.stdout) < 10_000
