"""More than 2^31 elements: an index of 32 bits would wrap. Zeros that nobody has written cost no memory, only
addresses."""
import numpy as np
import pytest

from minillm.kernels import select as registry

pytestmark = pytest.mark.skipif(registry._cpp is None, reason="no kernels are built")


@pytest.fixture(scope="module")
def huge():
    """2^31 + 64 float32 zeros but for the last, 3."""
    try:
        x = np.zeros(2 ** 31 + 64, np.float32)
    except MemoryError:
        pytest.skip("this system gives no 8.6 GB of addresses")
    x[-1] = 3
    return x


def test_sum_squares_reaches_the_last_element(huge):
    assert registry._cpp.sum_squares(huge) == 9


def test_embedding_reads_the_last_row(huge):
    C = 16
    wte = huge.reshape(-1, C)
    tokens = np.array([[len(wte) - 1, 0]])
    out, _ = registry._cpp.embedding_forward(tokens, wte, np.zeros((2, C), np.float32), 0)
    assert out[0, 0, -1] == 3 and not out[0, 1].any()


def test_cross_entropy_reads_the_last_row(huge):
    """2^31 logits in rows of 64: only the last row has a large one, and only it is asked for."""
    losses, _ = registry._cpp.cross_entropy_forward(
        huge.reshape(-1, 64), np.append(np.full(len(huge) // 64 - 1, -1), 63), -1)
    assert losses[-1] == pytest.approx(np.log(63 + np.exp(3)) - 3, rel=1e-5) and not losses[:-1].any()
