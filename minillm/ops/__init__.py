"""Reference operations: one file per op, each a derivation, a forward, a backward and its SPEC, in NumPy only.

Every pair keeps one contract:

    out, cache = op_forward(*inputs)
    dinputs    = op_backward(dout, cache)

Results are fresh arrays; inputs and caches are never written; `cache` is an opaque tuple owned by the pair. (One op
has two outputs: its `out` and `dout` are pairs.) A backward with gradients of parameters takes `into`: arrays to add
them to, in the order in which it returns them, where fresh ones would only be added by the caller; None in place of an
array says that nobody wants this gradient (its layer is frozen), and the compiled ops do not compute it.
`x.dtype` decides the precision: float32 to train, float64 for gradient checks, complex128 for the complex step
(so formulas here use no abs, no conj, and compare by real part). All float arrays of a call share it. Constants are
Python floats, because one NumPy float64 scalar would silently promote a whole float32 model.
Whatever does not fit (a shape, a dtype, a number out of range) raises a ValueError that names the argument.
"""
from .table import REFERENCE

globals().update(REFERENCE)         # layernorm_forward and so on: every function that a SPEC stands for
__all__ = list(REFERENCE)
