"""The learning rate as a function of the step: linear warm-up, then a cosine."""
import math


def cosine_schedule(step: int, warmup: int, steps: int, lr: float, min_lr: float) -> float:
    """Of step 0, 1, ...: linear up to lr over `warmup` steps, then half a cosine down to min_lr at `steps`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
