"""All parameters of a GPT in one flat buffer, with named views into it.

The optimizer, clipping and checkpoints are then one pass over one array, while the model still reads
`params["h.0.attn.c_attn.weight"]`. Matrices come first and vectors after, so the parameters that are decayed
(matrices only; Loshchilov & Hutter 2019, as GPT-2 is trained) are the one slice `flat[:params.n_decayed]`.

Names and layouts are those of Hugging Face's GPT-2: weights are stored (in, out), so a layer is
`x @ weight + bias` with no transpose. The same class holds both moments of the optimizer, `Gradients` the gradients;
and, while a model trains in bfloat16, `bits` is a copy of the master weights in that type (AdamW.keep_bits).
"""
import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..config import GPTConfig
from ..kernels.arrays import Zeros
from ..kernels.device import DeviceZeros, write

Array = np.ndarray
Shapes = dict[str, tuple[int, ...]]
HEAD = "lm_head.weight"                     # of a model whose output head is not its token embedding

BLOCKS = ("h.", "model.layers.")        # what the names of a block's parameters begin with: GPT-2's, Llama's
SIDE_BY_SIDE = {"attn.c_attn.weight": 3}


def gpt_shapes(config: GPTConfig) -> Shapes:
    """{name: shape} of every parameter, in reading order. `wte` is also the output head, if tied."""
    C, F = config.n_embd, config.mlp_width
    shapes: Shapes = {"wte.weight": (config.vocab_size, C), "wpe.weight": (config.block_size, C)}
    for i in range(config.n_layer):
        shapes |= {
            f"h.{i}.ln_1.weight": (C,), f"h.{i}.ln_1.bias": (C,),
            f"h.{i}.attn.c_attn.weight": (C, 3 * C), f"h.{i}.attn.c_attn.bias": (3 * C,),
            f"h.{i}.attn.c_proj.weight": (C, C), f"h.{i}.attn.c_proj.bias": (C,),
            f"h.{i}.ln_2.weight": (C,), f"h.{i}.ln_2.bias": (C,),
            f"h.{i}.mlp.c_fc.weight": (C, F), f"h.{i}.mlp.c_fc.bias": (F,),
            f"h.{i}.mlp.c_proj.weight": (F, C), f"h.{i}.mlp.c_proj.bias": (C,),
        }
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    return shapes if config.tied else shapes | {HEAD: (config.vocab_size, C)}


def block_matrices(shapes: Shapes) -> dict[str, int]:
    """{name: how many matrices lie side by side in it} of the weights of the blocks, which Muon is for."""
    return {name: next((parts for end, parts in SIDE_BY_SIDE.items() if name.endswith(end)), 1)
            for name, shape in shapes.items()
            if len(shape) == 2 and name.startswith(BLOCKS) and name.endswith(".weight")}


class Params(Mapping):
    """A flat buffer and its named views. Behaves like a read-only dict of arrays that may be written in place."""

    def __init__(self, shapes: Shapes, dtype: DTypeLike = np.float32, device: Any = None):
        """shapes: {name: shape}. The buffer starts as zeros; `clear()` makes it zeros again. device: where it is
        (kernels/device.py); None: in NumPy's memory."""
        self.shapes = dict(sorted(shapes.items(), key=lambda item: len(item[1]) < 2))   # stable: matrices first
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.n_decayed = sum(size for size, shape in zip(sizes, self.shapes.values()) if len(shape) >= 2)
        self.device = device
        self.buffer: Any = DeviceZeros(sum(sizes), dtype, device) if device else Zeros(sum(sizes), dtype)
        self.flat, self.clear = self.buffer.flat, self.buffer.clear
        self.bits: Params | None = None     # of uint16
        ends = [int(end) for end in np.cumsum(sizes)]
        self.ends = dict(zip(self.shapes, ends))
        self.views = {name: self.flat[end - size:end].reshape(shape)
                      for (name, shape), size, end in zip(self.shapes.items(), sizes, ends)}

    def __reduce__(self) -> tuple:
        """Copied or pickled as one buffer, whose views are made again, in the memory of the same device if any."""
        flat, device = np.array(on_host(self).flat), self.device.__name__ if self.device else ""
        frozen = not self.device and not self.flat.flags.writeable
        return restored, (type(self), self.shapes, flat, device, frozen, self.bits)

    def zeros_like(self, dtype: DTypeLike | None = None) -> "Params":
        """A fresh set of the same shapes, all zero, in the same memory: for gradients and moments."""
        return Params(self.shapes, dtype or self.flat.dtype, self.device)

    def astype(self, dtype: DTypeLike) -> "Params":
        """A copy in another dtype."""
        copy = self.zeros_like(dtype)
        copy.take(self)
        return copy

    def on(self, device: Any) -> "Params":
        """A copy on a device; or in NumPy's memory, for None."""
        copy = Params(self.shapes, self.flat.dtype, device)
        copy.take(self)
        return copy

    def take(self, other: "Params") -> None:
        """Copy the numbers of a set of the same shapes, of whatever dtype and in whatever memory."""
        mine: Any = self.flat
        theirs: Any = other.flat
        if self.device and other.device is self.device and theirs.dtype == mine.dtype:
            return write(mine, theirs)
        if other.device:
            theirs = theirs.numpy()
        write(mine, np.asarray(theirs, mine.dtype))

    def freeze(self, frozen: bool = True) -> None:
        """Make the buffer and its named views read-only, or writeable again. On a device they are never read-only."""
        if self.device:
            return
        for array in (self.flat, *self.views.values()):
            array.flags.writeable = not frozen

    def __getitem__(self, name: str) -> np.ndarray:
        return self.views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)


def restored(kind: type, shapes: Shapes, flat: np.ndarray, device: str, frozen: bool, bits: Params | None) -> Params:
    params, numbers = kind(shapes, flat.dtype, import_module(device) if device else None), Params(shapes, flat.dtype)
    numbers.flat[:], params.bits = flat, bits
    params.take(numbers)
    if frozen:
        params.freeze()
    return params


class Gradients(Params):
    """Gradients. Asked for by name, one will be written to: its pages are claimed first (kernels/arrays.py)."""

    def __getitem__(self, name: str) -> np.ndarray:
        view = self.views[name]
        if self.buffer.lender:
            self.buffer.expect(self.ends[name] - view.size, self.ends[name])
        return view


def on_host(params: Any) -> Any:
    """Parameters for what reads them by NumPy: themselves, or a copy of those on a device."""
    return params.on(None) if getattr(params, "device", None) else params


def layer(params: Mapping, name: str) -> tuple:
    """(weight, bias) of a layer; or their gradients, if params hold gradients."""
    return params[f"{name}.weight"], params[f"{name}.bias"]


def linear(params: Mapping, name: str) -> tuple:
    """(weight, bias) of a linear layer, for the GEMMs of training."""
    return matrix(params, f"{name}.weight"), params[f"{name}.bias"]


def matrix(params: Mapping, name: str) -> np.ndarray:
    """A weight as the GEMMs of training read it: the bits of its bfloat16 copy where there is one (AdamW.keep_bits)."""
    bits = getattr(params, "bits", None)                # parameters of other types are a plain dict
    return params[name] if bits is None else bits[name]
