"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("half missing", "0.5 * x * (1 + t), (x,)", "x * (1 + t), (x,)", "out lacks the factor 0.5"),
    ("sigmoid form", "return 0.5 * x * (1 + t), (x,)", "return x / (1 + np.exp(-1.702 * x)), (x,)",
     "out is the sigmoid form of GELU"),
    ("NumPy's root", "K = math.sqrt(2 / math.pi)", "K = np.sqrt(np.array([2 / math.pi]))",
     "out must be float32: got float64"),
    ("first term alone", " + 0.5 * x * (1 - t * t) * K * (1 + 3 * A * x * x)", "",
     "lacks the second term of the product rule"),
    ("tanh'", "1 - t * t", "1 - t", "your dx has a wrong tanh'"),
    ("no dout", "dout * slope", "slope", "dout is ignored"),
    ("clipped dout", "dout * slope", "np.clip(dout, -9, 9) * slope", "not linear in dout"),
]
