"""Wrong solutions of `grpo_advantage`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
STD = "std = rewards.std(axis=1, ddof=1, keepdims=True)"
WRONG = [
    ("the mean is left in", "(rewards - mean) /", "rewards /", "must sum to 0"),
    ("upside down", "(rewards - mean) /", "(mean - rewards) /", "above the mean is positive"),
    ("over G", STD, "std = rewards.std(axis=1, keepdims=True)", "over G - 1"),
    ("the variance", STD, "std = rewards.var(axis=1, ddof=1, keepdims=True)", "deviation"),
    ("the deviation of all", STD, "std = rewards.std(ddof=1)", "of each group by itself"),
    ("no deviation", "/ (std + 1e-4)", "", "deviation"),
    ("no small number", "std + 1e-4", "std", "1e-4"),
    ("max instead of sum", "(std + 1e-4)", "np.maximum(std, 1e-4)", "1e-4 is added"),
    ("all prompts together", "rewards.mean(axis=1, keepdims=True)", "rewards.mean()", "each group's own mean"),
    ("along the wrong axis", "axis=1", "axis=0", "which is a row"),
    ("small inside the root", "(std + 1e-4)", "np.sqrt(std ** 2 + 1e-4)", "1e-4"),
    ("in place", "return (rewards - mean) / (std + 1e-4)", "rewards -= mean\n    return rewards / (std + 1e-4)",
     "left as they are"),
]
