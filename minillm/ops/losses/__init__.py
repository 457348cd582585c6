"""Losses: cross-entropy, alone and with the tied head, and those of distillation, DPO and GRPO."""
