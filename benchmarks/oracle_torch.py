"""PyTorch's counterpart of an op, as its SPEC has it: the same inputs, forward and backward timed apart.

The forward builds its graph, as in training; the backward is autograd on that graph, kept for the next call. Weights
are stored the way PyTorch likes them, (out, in), where ours are (in, out); gradients are transposed back to be
compared.
"""
from functools import partial

import numpy as np
import torch

from .measure import Candidate, named_outs


def candidate(spec, args, dout, threads):
    """PyTorch's Candidate for an op of the table, or None where it has no counterpart. args, dout: NumPy arrays (dout a
    tuple of them for an op with several outputs)."""
    torch.set_num_threads(threads)
    if spec.torch is None:
        return None
    tensors = {name: tensor(spec, name, value) for name, value in args.items()}
    return update(spec, tensors) if spec.kind == "update" else differentiated(spec, tensors, dout)


def differentiated(spec, tensors, dout):
    """A Candidate with autograd's backward. An op that is given a key draws its mask from another generator than
    PyTorch's, so their results are not compared."""
    forward = partial(spec.torch, torch, **tensors)
    leaves = [tensors[name] for name in spec.differentiable]
    out = forward()
    several = isinstance(out, tuple)
    dout = tuple(map(torch.from_numpy, dout)) if several else torch.from_numpy(dout) if leaves else None

    def backward():
        return torch.autograd.grad(out, leaves, dout, retain_graph=True)

    def results():
        grads = backward() if leaves else ()
        return named_outs(tuple(o.detach().numpy() for o in out) if several else out.detach().numpy()) | {
            f"d{name}": transposed(spec, name, grad).numpy() for name, grad in zip(spec.differentiable, grads)}

    runs = {"forward": forward} | ({"backward": backward} if leaves else {})
    return Candidate("torch", runs, results, compared=not any(name.endswith("key") for name in tensors))


def update(spec, tensors):
    """A Candidate that works in place: one state is updated again and again, the results are those of a fresh one."""
    def results():
        step, result = spec.torch(torch, **tensors)
        step()
        return {name: part.numpy() for name, part in result().items()}

    return Candidate("torch", {"update": spec.torch(torch, **tensors)[0]}, results)


def tensor(spec, name, value):
    """An argument for PyTorch: arrays share their memory, differentiable ones ask for a gradient."""
    if not isinstance(value, np.ndarray):
        return value
    converted = transposed(spec, name, torch.from_numpy(value)).contiguous()
    return converted.requires_grad_(name in spec.differentiable)


def transposed(spec, name, value):
    return value.T if name in spec.transposed else value
