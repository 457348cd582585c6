"""The optimizer, under its public name: see train/optim.py."""
from .train.optim import AdamW, clip_grad_norm, clip_scale, cosine_schedule, global_norm

__all__ = ["AdamW", "clip_grad_norm", "clip_scale", "cosine_schedule", "global_norm"]
