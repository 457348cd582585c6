"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no residual at s1", "    ds1 = ds1 + dout\n", "", "lacks dout at s1"),
    ("no residual at x", "    dx = dx + ds1\n", "", "your dx lacks ds1"),
    ("dout at x", "    dx = dx + ds1\n", "    dx = dx + dout\n", "has dout added where ds1 belongs"),
    ("proj from dout", "linear_backward(ds1, proj)", "linear_backward(dout, proj)",
     "is made from dout where ds1 belongs"),
    ("norms exchanged", "return (dx, dln1_weight, dln1_bias,", "return (dx, dln1_bias, dln1_weight,",
     "exchanged with another"),
]
