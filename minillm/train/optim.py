"""The optimizers, AdamW over one flat buffer and Muon; clipping, the mean of the weights, their bf16 copy."""
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..kernels.device import on_host as as_numpy
from ..kernels.device import write
from ..kernels.select import Ops, multiplies_by_tiles
from ..models.params import Gradients, Params, block_matrices, on_host
from ..ops.bfloat16 import bfloat16_bits
from ..ops.optimizer.adamw import adamw_update
from ..ops.optimizer.muon import muon_update
from ..ops.optimizer.sum_squares import sum_squares
from .units import units_of

PIECE = 1 << 16                         # numbers averaged at a time: they stay in L2


def optimizer_for(model: Any, config: TrainConfig) -> "AdamW":
    """The optimizer that config asks for, on the parameters and ops of a model."""
    betas, more = (config.beta1, config.beta2), (config.eps, config.weight_decay, model.ops, config.ema)
    if config.optimizer == "muon":
        return Muon(model.params, config.lr, betas, *more, config.momentum)
    return AdamW(model.params, config.lr, betas, *more)


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) on Params: weight decay on matrices only, by one slice of the flat buffer."""

    def __init__(self, params: Params, lr: float = 6e-4, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.1, ops: Ops | None = None, ema: float = 0.0):
        """params: Params, updated in place. `ops` (from kernels/select.py) may bring a compiled update. ema: decay of
        the mean of the weights that is kept beside them (`averaged`); 0: none."""
        self.params, self.lr, self.betas, self.eps, self.weight_decay = params, lr, betas, eps, weight_decay
        self.flat = params.flat[:]              # a view of its own, writeable when keep_bits has frozen the others
        self.m, self.v, self.steps = params.zeros_like(), params.zeros_like(), 0
        self.grads = Gradients(params.shapes, params.flat.dtype, params.device)     # kept, for its pages
        self.world: Any = None                                      # of other processes (train/parallel.py)
        self.part: Gradients | None = None                          # of one micro-batch of several
        self.ops, self.update, self.orthogonal_update = ops, adamw_update, muon_update
        self.decay, self.mean = ema, params.zeros_like() if ema else None
        if ops:
            self.use(ops)

    def use(self, ops: Ops) -> None:
        """Update by the functions of this namespace from now on."""
        self.ops, self.update, self.orthogonal_update = ops, ops.adamw_update, ops.muon_update

    def zero_grads(self) -> Params:
        """The gradient buffer, set to zero, for `loss_and_grads(..., grads=...)` to add to."""
        self.grads.clear()
        return self.grads

    def micro_gradients(self, count: int) -> Iterator[tuple[int, Params]]:
        """(number, zeroed gradients to add to) of each micro-batch of a step; `grads` is their sum, in this order.

        Each micro-batch has its gradients to itself before they are added, so that it does not matter which process
        computes them (train/parallel.py).
        """
        yield 0, self.zero_grads()
        for micro in range(1, count):
            if self.part is None:
                self.part = Gradients(self.params.shapes, self.params.flat.dtype, self.params.device)
            self.part.clear()
            yield micro, self.part
            self.grads.flat += self.part.flat

    def of_micros(self, values: Mapping[int, Sequence[float]], count: int) -> np.ndarray:
        """The numbers that each micro-batch brought, by its number: (count, n)."""
        return np.array([values[micro] for micro in range(count)], np.float64)

    def norm(self) -> float:
        """Of all gradients together."""
        return global_norm(self.grads, self.ops)

    def agreed(self, wish: bool) -> bool:
        """Does any process wish it?"""
        return wish

    def whole_gradients(self) -> Params | None:
        """For the one process that writes what is known of a run, in NumPy's memory; None on the others."""
        return on_host(self.grads)

    def whole_moments(self) -> tuple[Params, Params] | None:
        """To be saved by the one process that writes, in NumPy's memory; None on the others."""
        return on_host(self.m), on_host(self.v)

    def take_moments(self, m: Params, v: Params) -> None:
        """Go on from these. Raises ValueError if they are another optimizer's."""
        if v.shapes != self.v.shapes:
            raise ValueError("the moments of another optimizer")
        self.m.take(m)
        self.v.take(v)

    def whole_mean(self) -> Params | None:
        """To be saved by the one process that writes, if there is one; None on the others."""
        return on_host(self.mean)

    def take_mean(self, mean: Params) -> None:
        """Go on from this one."""
        if self.mean is not None:
            self.mean.take(mean)

    def exchange_mean(self) -> None:
        """The mean and the weights change places."""
        if self.mean is not None:
            exchange(self.flat, self.mean.flat)

    def step(self, grads: Params, lr: float | None = None, scale: float = 1.0) -> None:
        """One update. grads: Params of the same shapes; lr overrides the default; scale multiplies the gradient."""
        self.steps += 1
        self.change(grads, self.lr if lr is None else lr, scale)
        if self.mean is not None:
            average(self.mean.flat, self.flat, self.decay, self.steps)

    def change(self, grads: Params, lr: float, scale: float) -> None:
        self.adamw(slice(0, self.flat.size), self.v.flat, grads, lr, scale)

    def adamw(self, span: slice, v: np.ndarray, grads: Params, lr: float, scale: float) -> None:
        """AdamW's update of a part of the buffer, whose second moment is v."""
        bits = None if self.params.bits is None else self.params.bits.flat[span]
        n_decayed = min(max(0, self.params.n_decayed - span.start), len(v))
        self.update(self.flat[span], grads.flat[span], self.m.flat[span], v, self.steps, lr, *self.betas, self.eps,
                    self.weight_decay, n_decayed, scale, bits)

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
            write(self.params.bits[name], bfloat16_bits(as_numpy(view)))
        self.params.freeze()

    def drop_bits(self) -> None:
        """End what `keep_bits` began: no copy, and parameters that anybody may write."""
        self.params.bits = None
        self.params.freeze(False)


class Muon(AdamW):
    """Muon (ops/optimizer/muon.py) for the matrices of the blocks; AdamW for embeddings, head, norms and biases.

    A row of the embedding is a token's own, which most batches do not even hold: there is no map whose directions could
    be made alike. Both use the same learning rate and weight decay. The matrices have no second moment.

    GPT-2's c_attn holds queries, keys and values side by side. They are three maps that read the same rows; as one
    matrix, the part with the largest gradient (mostly the values) would take most of the singular directions, and leave
    the others a small share of the update. So each is made orthogonal by itself, as it is in a Llama, where they lie
    apart.
    """

    def __init__(self, params: Params, lr: float = 6e-4, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.1, ops: Ops | None = None, ema: float = 0.0, momentum: float = 0.95):
        """As AdamW; momentum: of the matrices. Raises ValueError where there are none."""
        super().__init__(params, lr, betas, eps, weight_decay, ops, ema)
        self.momentum, self.matrices = momentum, matrices_of(params)
        if params.device:
            raise ValueError("optimizer: muon does not run on a device yet: train there with adamw")
        rest = {name: shape for name, shape in params.shapes.items() if name not in self.matrices}
        self.v = Params(rest, params.flat.dtype)
        self.spans, self.units = spans_of(params, self.v), units_of(params, self.matrices)

    def norm(self) -> float:
        """Of all gradients together, matrix by matrix: so that whoever has one adds its squares (parallel.py)."""
        square_sum, total = self.ops.sum_squares if self.ops else sum_squares, 0.0
        for unit in self.units:
            total += square_sum(self.grads.flat[unit.part])
        return math.sqrt(total)

    def change(self, grads: Params, lr: float, scale: float) -> None:
        flats = [self.flat, grads.flat, self.m.flat] + ([] if self.params.bits is None else [self.params.bits.flat])
        w, grad, m, *bits = ([part for name in self.matrices for part in self.matrices_in(flat, name)]
                             for flat in flats)
        self.orthogonal_update(w, grad, m, lr, self.momentum, self.weight_decay, scale, *bits)
        for span, v in self.spans:
            self.adamw(span, v, grads, lr, scale)

    def matrices_in(self, flat: np.ndarray, name: str) -> list[np.ndarray]:
        """Views of the parameter of this name in a flat buffer: one, or those that lie side by side."""
        shape = self.params.shapes[name]
        return side_by_side(flat, self.params.ends[name] - math.prod(shape), shape, self.matrices[name])


def matrices_of(params: Params) -> dict[str, int]:
    """{name: how many matrices lie side by side in it} of Muon's parameters. Raises ValueError if there are none."""
    if not (found := block_matrices(params.shapes)):
        raise ValueError("optimizer: muon is for the matrices of a model's blocks, and there are none among these "
                         "parameters; an adapter's low-rank factors are for adamw")
    return found


def side_by_side(flat: np.ndarray, start: int, shape: tuple[int, ...], parts: int) -> list[np.ndarray]:
    """Views of the `parts` matrices of a parameter that is in a flat buffer from `start` on."""
    return np.split(flat[start:start + math.prod(shape)].reshape(shape), parts, axis=1)


def spans_of(params: Params, some: Params) -> list[tuple[slice, np.ndarray]]:
    """Where parameters that lie one after the other are in params, and they are in `some`, which has not all."""
    spans: list[tuple[slice, np.ndarray]] = []
    for name, view in some.items():
        end, there = params.ends[name], some.ends[name]
        begin, here = end - view.size, there - view.size
        if spans and spans[-1][0].stop == begin:
            begin, here = spans[-1][0].start, here - len(spans.pop()[1])
        spans.append((slice(begin, end), some.flat[here:there]))
    return spans


def average(mean: Any, weights: Any, decay: float, t: int) -> None:
    """Step t = 1, 2, ... of the exponential moving average (EMA) of the weights, without bias to its start, in place.

        rate = (1 - beta) / (1 - beta^t)          e <- e + rate * (w - e)

    of the weights w, with the decay beta. With that rate the mean e is the sum of beta^(t - s) w[s] over all steps
    s <= t, divided by the sum of its coefficients: Adam's correction, made on the way. So it begins at the weights
    after the first step (a rate of 1), and never holds those that training began with.
    Source: Kingma & Ba 2015, arXiv 1412.6980, section 7.2; Polyak & Juditsky 1992.
    """
    rate = (1 - decay) / (1 - decay ** t)
    if not isinstance(mean, np.ndarray):                            # on a device
        return mean.average(weights, rate)
    for start in range(0, mean.size, PIECE):
        part = mean[start:start + PIECE]
        part += rate * (weights[start:start + PIECE] - part)


@contextmanager
def averaged(model: Any, optimizer: AdamW) -> Iterator[None]:
    """Meanwhile the model has the mean of its weights, where the optimizer keeps one: to be validated and saved."""
    if optimizer.mean is None or not optimizer.steps:
        yield
        return
    bits, model.params.bits = model.params.bits, None               # the GEMMs round the weights themselves
    optimizer.exchange_mean()
    try:
        yield
    finally:
        optimizer.exchange_mean()
        model.params.bits = bits


def exchange(a: Any, b: Any) -> None:
    if not isinstance(a, np.ndarray):                               # on a device
        before = a.copy()
        write(a, b)
        return write(b, before)
    for start in range(0, a.size, PIECE):
        part = slice(start, start + PIECE)
        a[part], b[part] = b[part], a[part].copy()


@contextmanager
def bf16_weight_copy(model: Any, optimizer: AdamW) -> Iterator[None]:
    """Meanwhile there is a bf16 copy of the master weights, if the model's GEMMs can read it and it pays.

    Where AMX multiplies, or a GPU, reading the weights is a large part of a GEMM. Without it the copy was measured to
    save nothing (benchmarks/LOG.md), and would cost 2 bytes of memory a parameter.
    """
    if not (model.takes_weight_copy and (model.params.device or multiplies_by_tiles())):
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
