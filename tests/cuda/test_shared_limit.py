"""A GPU whose blocks have less shared memory gets other kernels, not an error: float32 and float64, on the emulator."""
import numpy as np
import pytest

from benchmarks import gpu_check
from minillm.kernels import select as registry

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)


@pytest.fixture(autouse=True)
def afterwards():
    yield
    sim.set_capability(90)


def differ(capability, dtype, HS):
    """Is variant 2's backward another one than variant 1's, by its bits, at this capability? All must be right."""
    sim.set_capability(capability)
    rng = np.random.default_rng(HS)
    qkv, dout = (rng.standard_normal((1, 9, width)).astype(dtype) for width in (3 * HS, HS))
    want, dwant = gpu_check.reference(qkv, dout, 1, True)
    out, cache = sim.attention_forward_2_flash(qkv, 1)
    flash, naive = sim.attention_backward_2_flash(dout, cache), sim.attention_backward_1_naive(dout, cache)
    assert gpu_check.distance(out, want) < gpu_check.LIMITS[dtype]
    assert all(gpu_check.distance(got, dwant) < gpu_check.LIMITS[dtype] for got in (flash, naive))
    return flash.tobytes() != naive.tobytes()


@pytest.mark.parametrize("dtype, HS, needs", [("float32", 64, 87), ("float32", 128, 111), ("float32", 256, 138),
                                              ("float64", 64, 123), ("float64", 128, 145), ("float64", 256, 133)])
def test_what_does_not_fit_runs_as_variant_1(dtype, HS, needs):
    """`needs`: KB of the backward's tiles."""
    for capability, has in {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}.items():
        assert differ(capability, dtype, HS) == (needs <= has), capability
