"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no bias", "x @ weight + bias", "x @ weight", "bias is not added"),
    ("bias to the weight", "x @ weight + bias", "x @ (weight + bias)", "belongs to the product"),
    ("weight transposed", "x @ weight", "x @ weight.T",
     "in linear_forward (out = x @ weight.T + bias): ValueError: matmul"),
    ("out alone", "return out, (x, weight)", "return out", "must return the pair (out, cache): got a ndarray"),
    ("no return", "return out, (x, weight)", "pass", "got None: is a `return` missing?"),
    ("rows without leading axes", "out = x @ weight + bias", "out = x.reshape(-1, x.shape[-1]) @ weight + bias",
     "out must have shape (2, 5, 24): got (10, 24)"),
    ("promotes", "x @ weight + bias", "(x @ weight + bias).astype('float64')", "out must be float32: got float64"),
    ("twice the product", "x @ weight + bias", "2 * (x @ weight + bias)", "all are 2 times the right ones"),
    ("writes the bias", "out = x @ weight + bias", "out = x @ weight + bias; bias += 0.1",
     "bias was written by linear_forward"),
]
