"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no scale", "x * keep * (1 / (1 - p))", "x * keep", "not scaled by 1 / (1 - p)"),
    ("wrong way", "x * keep *", "x * ~keep *", "the mask is the wrong way round"),
    ("by p", "x * keep * (1 / (1 - p))", "x * keep * (1 / p)", "it is divided by p"),
    ("random", "keep = keep_mask(x.size, p, key).reshape(x.shape)", "keep = np.random.random(x.shape) >= p",
     "numbers differ)"),
    ("backward without scale", "dout * keep * (1 / (1 - p))", "dout * keep", "your dx lacks the scale"),
    ("backward without mask", "dout * keep * (1 / (1 - p))", "dout * (1 / (1 - p))", "your dx lacks the mask"),
    ("another step", "keep_mask(dout.size, p, key)", "keep_mask(dout.size, p, (key[0], key[1] + 1, key[2]))",
     "has another mask than the forward"),
]
