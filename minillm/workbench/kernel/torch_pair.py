"""PyTorch's version of an op as functions with our names, for the bench: autograd does the backward."""
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...ops.table import OPS, Dims, functions


def torch_functions(op: str) -> SimpleNamespace:
    """forward and backward of one op on PyTorch, arrays in and out. Raises ValueError where the op has no
    counterpart."""
    import torch
    spec = OPS[op]
    if spec.torch is None or spec.kind == "update":
        raise ValueError(f"--against torch: op {op} has no counterpart in PyTorch that takes the same arrays")
    names = list(spec.sample(np.random.default_rng(0), "float32", Dims()))

    def forward(*args: Any) -> Any:
        given = {name: torch.from_numpy(value) if hasattr(value, "dtype") else value for name,
                 value in zip(names, args)}
        for name in spec.transposed:
            given[name] = given[name].T
        leaves = [given[name].requires_grad_() for name in spec.differentiable]
        with torch.set_grad_enabled(bool(leaves)):
            out = spec.torch(torch, **given)
        outs = out if isinstance(out, tuple) else (out,)
        plain = tuple(part.detach().numpy() for part in outs)
        return (plain if len(plain) > 1 else plain[0], (outs, leaves)) if spec.kind == "pair" else plain[0]

    def backward(dout: Any, cache: Any) -> Any:
        outs, leaves = cache
        douts = [torch.from_numpy(part) for part in (dout if isinstance(dout, tuple) else (dout,))]
        grads = torch.autograd.grad(outs, leaves, douts, retain_graph=True)
        plain = tuple((g.T if n in spec.transposed else g).contiguous().numpy() for n,
                      g in zip(spec.differentiable, grads))
        return plain if len(plain) > 1 else plain[0]

    return SimpleNamespace(**dict(zip(functions(spec), (forward, backward))))
