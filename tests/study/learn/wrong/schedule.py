"""Wrong solutions of `schedule`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
COSINE = "return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2"
WRONG = [
    ("step 0 learns nothing", "lr * (step + 1) / warmup", "lr * step / warmup", "first step must learn"),
    ("the warm-up starts at min_lr", "lr * (step + 1) / warmup", "min_lr + (lr - min_lr) * (step + 1) / warmup",
     "lr / warmup"),
    ("a line instead of a cosine", COSINE, "return lr + (min_lr - lr) * progress", "must be a cosine"),
    ("a quarter of a period", "(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi * progress / 2)",
     "half the way down"),
    ("a whole period", "math.cos(math.pi * progress)", "math.cos(2 * math.pi * progress)", "half the way down"),
    ("down to 0", COSINE, "return lr * (1 + math.cos(math.pi * progress)) / 2", "mean of lr and min_lr"),
    ("it rises again", "min(1.0, (step - warmup) / max(1, steps - warmup))",
     "(step - warmup) / max(1, steps - warmup)", "beyond the last step"),
    ("the cosine begins at step 0", "(step - warmup) / max(1, steps - warmup)", "step / max(1, steps)",
     "where the warm-up ends"),
    ("no room, no divisor", "max(1, steps - warmup)", "(steps - warmup)", "division by zero"),
    ("a decay of one step is skipped", "max(1, steps - warmup)", "max(2, steps - warmup)", "a decay of one step"),
    ("WSD never decays", "min(1.0, max(0.0, left))", "1.0", "a line from lr to min_lr"),
    ("WSD decays from the warm-up on", "(end - step) / max(1, end - start)", "(end - step) / max(1, end - warmup)",
     "must be lr"),
    ("WSD falls below min_lr", "min(1.0, max(0.0, left))", "min(1.0, left)", "after the decay"),
    ("WSD decays to 0", "return min_lr + (lr - min_lr) * min(1.0, max(0.0, left))",
     "return lr * min(1.0, max(0.0, left))", "a line from lr to min_lr"),
]
