"""The training loop, the optimizer, schedules, checkpoints and the log."""
