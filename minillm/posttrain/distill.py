"""Distillation: a small model learns a large one's probabilities. Made for drafts of speculative decoding.

Both read the same tokens; the loss of ops/distillation_loss.py compares what they say about the next one. The logits
of both are made chunk by chunk, as in linear_cross_entropy, and the student's gradient is taken back to its residual
stream at once, so that never more than 256 rows of V logits are alive. The teacher runs forward only.
"""
import time
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..ops.losses.linear_cross_entropy import chunks
from ..train.loop import batches_of, update
from ..train.optim import AdamW


def distillation_grads(student: Any, teacher: Any, tokens: np.ndarray, targets: np.ndarray, temperature: float,
                       weight: float, key: Any, grads: Any, count: int) -> float:
    """Add the gradient of the mean loss over `count` targets to grads (Params); returns this batch's part of the loss.

    tokens, targets (B, T) int, targets of -1 do not count; both models must have the same vocabulary.
    """
    ops, head = student.ops, student.params[student.head]                       # (V, C)
    x, activations = student.hidden(tokens, key)                                # (B, T, C)
    rows = x.reshape(-1, x.shape[-1])                                           # (B*T, C)
    guide = teacher.hidden(tokens)[0].reshape(len(rows), -1)                    # (B*T, the teacher's C)
    targets, drows, loss = targets.reshape(-1), np.empty_like(rows), 0.0
    for chunk in chunks(len(rows)):
        losses, cache = ops.distillation_loss_forward(rows[chunk] @ head.T, logits_of(teacher, guide[chunk]),
                                                      targets[chunk], temperature, weight, -1)
        dlogits = ops.distillation_loss_backward(np.full(len(losses), 1 / count, losses.dtype), cache)  # (n, V)
        drows[chunk] = dlogits @ head
        grads[student.head][...] += dlogits.T @ rows[chunk]
        loss += float(losses.sum(dtype=np.float64)) / count
    student.hidden_backward(drows, activations, grads)
    return loss


def logits_of(model: Any, x: np.ndarray) -> np.ndarray:
    """The logits (n, V) of rows (n, C) of the residual stream; capped, where the model caps its own."""
    logits = model.ops.head(x, model.params[model.head])
    return model.capped(logits) if hasattr(model, "capped") else logits


def distill_step(teacher: Any, temperature: float = 1.0, weight: float = 0.9) -> Any:
    """The step for `train`: the student learns from the teacher and from the text. Source: Hinton et al. 2015."""
    def step(student: Any, optimizer: AdamW, data: Any, config: TrainConfig, state: dict[str, Any]) -> Any:
        started, grads = time.perf_counter(), optimizer.zero_grads()
        batches = batches_of(data, state["step"], config)
        count = sum(batch.learned for batch in batches)
        loss = sum(distillation_grads(student, teacher, batch.tokens, batch.targets, temperature, weight,
                                      (config.seed, state["step"], micro), grads, count)
                   for micro, batch in enumerate(batches))
        return update(student, optimizer, config, state, loss, count, started)
    return step
