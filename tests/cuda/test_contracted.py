"""The logsumexp where the compiler makes one fused multiply-add of a product and a sum, as nvcc does."""
import ctypes
import platform
import shutil

import numpy as np
import pytest
from cuda_mutations import CUDA, build, inputs, run

CONTRACTED = ("-O2", "-mfma", "-ffp-contract=fast")
if not shutil.which("g++") or not CUDA.exists() or platform.machine() != "x86_64":
    pytest.skip("needs g++ for x86-64 and the sources in csrc", allow_module_level=True)
LOST = ("a difference of products", "attention/common.cuh",
        "return old == top ? 1.0f : exp2_fast((old - top) * scale2);",
        "return exp2_fast(fmaf(old, scale2, top == -INFINITY ? 0.0f : -top * scale2));")      # as nvcc contracts it
T, HS = 1024, 32


def errors(library, variant):
    """The largest error of the logsumexp for scores of deviation 1, 10, 50 and 200, in units of 1 + |lse| * 2^-23."""
    found = []
    for deviation in (1, 10, 50, 200):
        qkv, _ = inputs(1, T, 1, HS)
        qkv[..., :HS] = rounded(qkv[..., :HS] * deviation)
        text, _, lse, _ = run(library, variant, 0, qkv, None, 1, 0)
        assert not text
        q, k = qkv[0, :, :HS].astype("float64"), qkv[0, :, HS:2 * HS].astype("float64")
        scores = q @ k.T / HS ** 0.5
        top = scores.max(axis=1)
        wanted = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        found.append(float((np.abs(lse[0, 0] - wanted) / (2e-6 + 2 ** -22 * np.abs(wanted))).max()))
    return found


def rounded(x):
    return ((x.astype("float32").view("uint32") + 0x8000) & 0xffff0000).view("float32")         # bfloat16 numbers


@pytest.mark.parametrize("variant", [3, 4])
def test_the_logsumexp_does_not_drift(tmp_path, variant):
    assert max(errors(ctypes.CDLL(str(build(tmp_path, variant, None, CONTRACTED))), variant)) < 1.5


def test_a_difference_of_products_is_seen(tmp_path):
    assert max(errors(ctypes.CDLL(str(build(tmp_path, 3, LOST, CONTRACTED))), 3)) > 2
