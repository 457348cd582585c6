"""Training on a device: batches go there by one explicit call, and a step is recorded once and replayed.

All arrays of a step, from the tokens' embedding to the gradients, stay on the device: nothing is copied or waited for
but the loss and the gradient's norm, two numbers a step. Its memory comes from the device's arena (csrc/cuda/gpu/
arena.h), where each array finds the block of the same array one step before.
"""
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..kernels.device import Replay, device_of, missing
from ..kernels.select import select
from ..models.adapted import LoraModel
from ..models.gpt2 import GPT
from ..models.packing import Batch
from ..models.params import Params, on_host

Array = np.ndarray
UPDATE = ("adamw", "sum_squares")       # the ops of the optimizer's step


def check_device(backend: str, config: ModelConfig, lora: bool = False) -> None:
    """Raise ValueError for what cannot train on the device of a backend, and ImportError as `select` does: before the
    text is read. config: of the model; lora: whether only adapters learn."""
    select(backend)
    if device_of(backend) is None:
        return
    family = getattr(config, "family", "gpt2")
    if lora or family != "gpt2":
        raise ValueError(f"train.backend={backend} trains models of family gpt2, all their weights: got "
                         + ("adapters (--lora-rank)" if lora else f"model.family={family}"))
    used = (*(op for op in GPT.runs_on if op not in ("attention_decode", "head")), *UPDATE)      # those decode
    if lacking := missing(backend.partition("/")[0], used):
        raise ValueError(f"backend {backend} has no {', '.join(lacking)}, which a GPT-2 needs to be trained")


def to_device(model: Any, backend: str) -> Any:
    """The model, its parameters copied to the device of a backend and its ops those; or itself, where that is none.

    Raises as `check_device` does.
    """
    device = device_of(backend)
    if device is None:
        return model
    check_device(backend, model.config, isinstance(model, LoraModel))
    return model.on(select(backend), model.params.on(device))


def placed(model: Any, batch: Batch) -> Batch:
    """The batch in the memory that the model's parameters are in. Raises ValueError for a packed row on a device."""
    device = getattr(model.params, "device", None)
    if device is None:
        return batch
    if batch.lengths is not None:
        raise ValueError("a packed row cannot be trained on a device: use backend cpu")
    tokens, targets = (device.from_numpy(int64(ids)) for ids in (batch.tokens, batch.targets))
    return Batch(tokens, targets)


def host_model(model: Any) -> Any:
    """The same model in NumPy's memory, where its activations can be looked into."""
    return model.on(select("auto"), on_host(model.params)) if getattr(model.params, "device", None) else model


class Recorded:
    """`loss_and_grads` of a GPT on a device, for NumPy's tokens: recorded in the second call with arrays of a shape,
    and replayed from then on. Dropout's masks differ from step to step, so with dropout each step is launched anew.
    """

    def __init__(self, model: GPT):
        self.model, self.device = model, model.params.device
        self.replays: dict[tuple, Replay] = {}
        self.device.use_new_stream()

    def loss_and_grads(self, tokens: Array, targets: Array, ignore_index: int, key: tuple, grads: Params, count: int,
                       lengths: list[int] | None = None) -> tuple[float, Params]:
        """As GPT's, which says what the arguments are."""
        if self.model.config.dropout or lengths is not None:
            batch = placed(self.model, Batch(tokens, targets, lengths))
            return self.model.loss_and_grads(batch.tokens, batch.targets, ignore_index, key, grads, count)
        check_ids(tokens, targets, ignore_index, self.model.config.vocab_size)
        count, model = max(1, count), self.model

        def learn(tokens: Any, targets: Any, dlosses: Any) -> Any:      # without self: a cycle would keep the arrays
            losses, caches = model.losses(tokens, targets, ignore_index)
            model.backward(dlosses, caches, grads)
            return losses
        replay = self.replays.setdefault((tokens.shape, id(grads), ignore_index), Replay(self.device, learn))
        dlosses = np.full(tokens.size, 1 / count, grads.flat.dtype)
        return float(replay(int64(tokens), int64(targets), dlosses).sum()) / count, grads


def check_ids(tokens: Array, targets: Array, ignore_index: int, vocab_size: int) -> None:
    """Raise ValueError for an id outside of the vocabulary: a replay launches kernels without the ops' checks."""
    for name, ids in (("tokens", tokens), ("targets", targets)):
        if not (isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and ids.shape == np.shape(tokens)):
            raise ValueError(f"{name} must be an array of NumPy, of integers and of the shape of tokens")
    for name, ids in (("tokens", tokens), ("targets", targets[targets != ignore_index])):
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError(f"{name} must be in [0, {vocab_size}): got {ids.min()} to {ids.max()}")


def int64(ids: Array) -> Array:
    return np.ascontiguousarray(ids, np.int64)
