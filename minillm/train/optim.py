"""The optimizer: AdamW over one flat buffer, global-norm clipping, and the bf16 copy of the master weights."""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..kernels.select import Ops, multiplies_by_tiles
from ..models.params import Gradients, Params
from ..ops.bfloat16 import bfloat16_bits
from ..ops.optimizer.adamw import adamw_update
from ..ops.optimizer.sum_squares import sum_squares


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) on Params: weight decay on matrices only, by one slice of the flat buffer."""

    def __init__(self, params: Params, lr: float = 6e-4, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.1, ops: Ops | None = None):
        """params: Params, updated in place. `ops` (from kernels/select.py) may bring a compiled update."""
        self.params, self.lr, self.betas, self.eps, self.weight_decay = params, lr, betas, eps, weight_decay
        self.flat = params.flat[:]              # a view of its own, writeable when keep_bits has frozen the others
        self.m, self.v, self.steps = params.zeros_like(), params.zeros_like(), 0
        self.grads = Gradients(params.shapes, params.flat.dtype)    # kept: a fresh one would be faulted in anew
        self.update = ops.adamw_update if ops else adamw_update

    def zero_grads(self) -> Params:
        """The gradient buffer, set to zero, for `loss_and_grads(..., grads=...)` to add to."""
        self.grads.clear()
        return self.grads

    def step(self, grads: Params, lr: float | None = None, scale: float = 1.0) -> None:
        """One update. grads: Params of the same shapes; lr overrides the default; scale multiplies the gradient."""
        self.steps += 1
        bits = None if self.params.bits is None else self.params.bits.flat
        self.update(self.flat, grads.flat, self.m.flat, self.v.flat, self.steps, self.lr if lr is None else lr,
                    *self.betas, self.eps, self.weight_decay, self.params.n_decayed, scale, bits)

    def keep_bits(self) -> None:
        """Keep `params.bits`, a bf16 copy of the master weights, from now on: `step` writes both in the same pass.

        For ops that multiply in bfloat16 ("cpu/bf16"): GEMMs then read 2 bytes a weight, not 4 that each call
        would round again, forward and backward and once for every micro-batch, to the same results. It costs 2 bytes of
        memory a parameter, and 2 to write in each step. A stale copy would train on old weights in silence. So
        meanwhile `step` alone may write: the parameters are read-only, and NumPy raises ValueError for any other write
        through params (a view taken before is not seen). To load others: `drop_bits`, load, and `keep_bits` again.
        Raises ValueError unless the parameters are float32.
        """
        if self.flat.dtype != np.float32:
            raise ValueError(f"params must be float32 to be kept in bfloat16: got {self.flat.dtype}")
        self.params.bits = self.params.zeros_like(np.uint16)
        for name, view in self.params.items():                  # one by one: rounding makes copies
            self.params.bits[name][...] = bfloat16_bits(view)
        self.params.freeze()

    def drop_bits(self) -> None:
        """End what `keep_bits` began: no copy, and parameters that anybody may write."""
        self.params.bits = None
        self.params.freeze(False)


@contextmanager
def bf16_weight_copy(model: Any, optimizer: AdamW) -> Iterator[None]:
    """Meanwhile there is a bf16 copy of the master weights, if the model's GEMMs can read it and it pays.

    Where AMX multiplies, reading the weights is a large part of a GEMM. Without it the copy was measured to save
    nothing (benchmarks/LOG.md), and would cost 2 bytes of memory a parameter.
    """
    if not (model.takes_weight_copy and multiplies_by_tiles()):
        yield
        return
    optimizer.keep_bits()
    try:
        yield
    finally:
        optimizer.drop_bits()


def global_norm(grads: Params, ops: Ops | None = None) -> float:
    """Euclidean norm of all gradients together, summed in float64 in a fixed order: the same on every run.

        norm = sqrt(sum over i of g[i]^2)
    """
    return math.sqrt((ops.sum_squares if ops else sum_squares)(grads.flat))


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings a gradient of this norm down to max_norm; 1 where it is short enough or max_norm is 0.

        scale = min(1, max_norm / norm)
    """
    return max_norm / norm if max_norm and norm > max_norm else 1.0


def clip_grad_norm(grads: Params, max_norm: float) -> float:
    """Scale grads in place so that their global norm is at most max_norm; returns the norm before.

    Raises ValueError for a norm not finite or a max_norm below 0. Source: Pascanu et al. 2013, arXiv 1211.5063.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be at least 0: got {max_norm}")
    norm = global_norm(grads)
    if not math.isfinite(norm):
        raise ValueError(f"grads must be finite: their global norm is {norm}")
    grads.flat *= clip_scale(norm, max_norm)
    return norm
