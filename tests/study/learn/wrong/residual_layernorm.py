"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no dsum", "    ds = ds + dsum\n", "", "lacks dsum"),
    ("dsum alone", "    ds = ds + dsum\n", "    ds = dsum\n", "is dsum alone"),
    ("half", "ds = ds + dsum", "ds = (ds + dsum) / 2", "is half of it"),
    ("x goes on", "return (s, out), cache", "return (x, out), cache", "the first result is s = x + y"),
    ("out alone", "return (s, out), cache", "return out, cache", "out must be a tuple of 2"),
    ("norm of x", "layernorm_forward(s, weight", "layernorm_forward(x, weight", "LayerNorm is taken of x"),
]
