"""The optimizer, under its public name: see train/optim.py and train/schedule.py."""
from .train.optim import AdamW, clip_grad_norm, clip_scale, global_norm
from .train.schedule import cosine_schedule, wsd_schedule

__all__ = ["AdamW", "clip_grad_norm", "clip_scale", "cosine_schedule", "global_norm", "wsd_schedule"]
