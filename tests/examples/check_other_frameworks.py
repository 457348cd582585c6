"""A function of PyTorch or JAX as a pair: what its autograd gives, checked by differences like a backward by hand."""
import numpy as np

from minillm.gradcheck import assert_gradients


def torch_pair(function):
    import torch

    def forward(*arrays):
        tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        out = function(*tensors)
        return out.detach().numpy().copy(), (out, [t for t in tensors if t.requires_grad])

    def backward(dout, cache):
        grads = torch.autograd.grad(cache[0], cache[1], torch.tensor(dout), retain_graph=True)
        return tuple(grad.numpy().copy() for grad in grads)
    return forward, backward


def jax_pair(function):
    import jax
    jax.config.update("jax_enable_x64", True)

    def forward(*arrays):
        out, pullback = jax.vjp(function, *arrays)
        return np.array(out), pullback

    def backward(dout, pullback):
        return tuple(np.array(grad) for grad in pullback(dout))
    return forward, backward


x, weight = np.random.default_rng(0).standard_normal((2, 4, 4))
for name, pair in (("torch", torch_pair), ("jax", jax_pair)):
    try:
        assert_gradients(*pair(lambda x, w: (x @ w) ** 2), {"x": x, "w": weight})
        print(f"{name}: ok")
    except ImportError:
        print(f"{name}: not installed")
