"""Arrays of other libraries in and out (DLPack), on the emulator, whose device is the CPU; the code is the GPU's."""
import numpy as np
import pytest

from minillm.kernels import select as registry

torch = pytest.importorskip("torch")
sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)

LIMIT = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}   # of the tensor's norm
B, NH, T, HS = 2, 3, 37, 40


def tensors(dtype, n=4, shape=(B, NH, T, HS)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(n)]


def of_torch(q, k, v, dout, causal):
    q, k, v = (x.double().clone().requires_grad_() for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    out.backward(dout.double())
    return out.detach(), q.grad, k.grad, v.grad


def of_ours(q, k, v, dout, causal=True, variant=0):
    out, cache = sim.arrays_forward(q, k, v, causal, variant)
    return [torch.from_dlpack(x) for x in (out, *sim.arrays_backward(dout, cache))]


def error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_equals_torch(dtype, causal):
    arrays = tensors(dtype)
    for got, want in zip(of_ours(*arrays, causal), of_torch(*arrays, causal)):
        assert got.dtype == dtype and got.shape == want.shape
        assert error(got, want) < LIMIT[dtype]


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_any_strides(dtype):
    """(B, T, NH, HS) seen as (B, NH, T, HS), as c_attn's output is; without a copy."""
    arrays = [x.transpose(1, 2) for x in tensors(dtype, shape=(B, T, NH, HS))]
    straight = of_ours(*(x.contiguous() for x in arrays))
    for got, want in zip(of_ours(*arrays), straight):
        assert torch.equal(got, want)


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
def test_variants(variant):
    arrays = tensors(torch.float32)
    for got, want in zip(of_ours(*arrays, variant=variant), of_torch(*arrays, True)):
        assert error(got, want) < (8e-3 if variant >= 3 else 1e-6)


def test_results_outlive_their_source():
    """The memory belongs to whoever took it; a capsule that nobody takes is freed."""
    out, cache = sim.arrays_forward(*tensors(torch.float32, 3))
    first = torch.from_dlpack(out).clone()
    out.__dlpack__()
    taken = torch.from_dlpack(out)
    del out, cache
    sim.arrays_forward(*tensors(torch.float32, 3))
    assert torch.equal(taken, first)


def test_numpy_takes_it_too():
    q, k, v = (x.numpy() for x in tensors(torch.float32, 3))
    out, _ = sim.arrays_forward(q, k, v)
    assert out.__dlpack_device__() == (1, 0) and out.shape == (B, NH, T, HS) and out.dtype == "float32"
    assert np.from_dlpack(out).shape == (B, NH, T, HS)
    assert not hasattr(out, "__cuda_array_interface__")


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
def test_memory_grows_with_T_not_with_its_square(variant):
    """Twice the tokens, twice the memory, forward and backward."""
    peaks = []
    for length in (32, 64, 128):
        arrays = tensors(torch.float32, shape=(1, 1, length, 16))
        sim.peak_bytes()
        before = sim.peak_bytes()
        of_ours(*arrays, variant=variant)
        peaks.append(sim.peak_bytes() - before)
    assert peaks[0] > 0 and peaks[1] == 2 * peaks[0] and peaks[2] == 2 * peaks[1]


def test_empty():
    q, k, v = tensors(torch.float32, 3, (0, NH, T, HS))
    assert sim.arrays_forward(q, k, v)[0].shape == (0, NH, T, HS)


class OnAGpu:
    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked")


@pytest.mark.parametrize("change, words", [
    (lambda q, k, v: (q, k.double(), v), "k must have dtype float32: got float64"),
    (lambda q, k, v: (q, k, v[:, :, 1:]), "v must have the shape of q"),
    (lambda q, k, v: (q[0], k, v), "q must have shape .B, NH, T, HS.: got 3 axes"),
    (lambda q, k, v: (q.transpose(2, 3), k, v), "q must have a contiguous last axis"),
    (lambda q, k, v: (q.int(), k.int(), v.int()), "q must be float32, float64, float16 or bfloat16"),
    (lambda q, k, v: (OnAGpu(), k, v), "q must be on the CPU: got DLPack device .2, 0."),
    (lambda q, k, v: (q, [1], v), "k must be an array with __dlpack__: got list"),
], ids=range(7))
def test_errors_name_the_argument(change, words):
    with pytest.raises(ValueError, match=words):
        sim.arrays_forward(*change(*tensors(torch.float32, 3)))


@pytest.mark.parametrize("dtype, variant, words", [(torch.float16, 2, "for this variant: got float16"),
                                                (torch.float64, 3, "for this variant: got float64"),
                                                (torch.float32, 7, "variant must be 0 to 4: got 7")])
def test_variants_that_do_not_fit(dtype, variant, words):
    with pytest.raises(ValueError, match=words):
        sim.arrays_forward(*tensors(dtype, 3), True, variant)
