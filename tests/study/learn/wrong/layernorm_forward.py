"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("C - 1", "(centred ** 2).mean(axis=-1, keepdims=True)",
     "(centred ** 2).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)", "the variance is divided by C - 1"),
    ("eps outside", "1 / np.sqrt(var + eps)", "1 / (np.sqrt(var) + eps)", "eps belongs inside the root"),
    ("no root", "1 / np.sqrt(var + eps)", "1 / (var + eps)", "its root is missing"),
    ("not centred", "xhat = centred * rstd", "xhat = x * rstd", "the mean is not taken off"),
    ("no keepdims", "x.mean(axis=-1, keepdims=True)", "x.mean(axis=-1)", "in layernorm_forward (centred ="),
    ("axis 0", "mean(axis=-1, keepdims=True)", "mean(axis=0, keepdims=True)", "a row is the last"),
    ("whole mean", "centred = x - x.mean(axis=-1, keepdims=True)", "centred = x - x.mean()", "numbers differ)"),
    ("in place", "centred = x - x.mean(axis=-1, keepdims=True)",
     "centred = x; centred -= x.mean(axis=-1, keepdims=True)", "x was written by layernorm_forward"),
]
