"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no residual", "return s1 + h", "return h", "the residual around the MLP is missing"),
    ("norm goes on", "s1 = x + projected", "s1 = a + projected", "the LayerNorm of x is added"),
    ("x at the end", "return s1 + h", "return x + h", "x is added at the end"),
    ("no projection", 'linear_forward(mixed, p["proj.weight"], p["proj.bias"])', "(mixed, None)",
     "the linear layer after attention is left out"),
    ("one norm twice", 'p["ln2.weight"], p["ln2.bias"]', 'p["ln1.weight"], p["ln1.bias"]', "numbers differ)"),
    ("cache too", "return s1 + h", "return s1 + h, None",
     "what block_forward returns must be an array of shape (2, 3, 4): got a tuple of 2"),
]
