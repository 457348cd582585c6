"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("half each", "return dout.copy(), dout.copy()", "return dout / 2, dout / 2", "your dx is half of dout"),
    ("one gradient", "return dout.copy(), dout.copy()", "return dout.copy()",
     "must return 2 gradients (dx, dy): got 1"),
    ("difference", "return x + y", "return x - y", "y is taken off"),
    ("in place", "return x + y", "x += y\n    return x", "x was written by forward"),
    ("swallowed", "return dout.copy(), dout.copy()", "return dout.copy(), 0 * dout",
     "your dy: zero instead of the gradient"),
    ("negative", "return dout.copy(), dout.copy()", "return dout.copy(), -dout", "your dy: the sign is wrong"),
]
