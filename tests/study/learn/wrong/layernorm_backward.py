"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no mean term", " - g.mean(axis=-1, keepdims=True)", "", "your dx lacks the mean term"),
    ("no variance term", " - xhat * (g * xhat).mean(axis=-1, keepdims=True)", "", "your dx lacks the variance term"),
    ("direct way", "(g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))", "g",
     "has the direct way alone"),
    ("no weight", "g = dout * weight ", "g = dout ", "your dx lacks the weight"),
    ("no rstd", "dx = rstd * (", "dx = (", "your dx lacks the factor rstd"),
    ("sums", "g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(",
     "g.sum(axis=-1, keepdims=True) - xhat * (g * xhat).sum(", "has sums over the row where means belong"),
    ("dweight without xhat", "(dout * xhat).reshape(-1, C).sum(axis=0)", "dout.reshape(-1, C).sum(axis=0)",
     "your dweight lacks xhat"),
    ("dweight mean", "(dout * xhat).reshape(-1, C).sum(axis=0)", "(dout * xhat).reshape(-1, C).mean(axis=0)",
     "your dweight: 1/10"),
    ("one row", "dbias = dout.reshape(-1, C).sum(axis=0)", "dbias = dout.reshape(-1, C)[-1]",
     "your dbias: only the last of 10 outputs counts"),
]
