"""Wrong solutions of `lora`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
OUT = "out = x @ weight + bias + (scale * h) @ b"
WRONG = [
    ("scale missing", OUT, "out = x @ weight + bias + x @ a @ b", "not multiplied by scale"),
    ("no bias", OUT, "out = x @ (weight + scale * a @ b)", "the bias is not added"),
    ("everything is scaled", OUT, "out = (x @ weight + bias + h @ b) * scale", "the update only"),
    ("only the update", OUT, "out = scale * (x @ a @ b)", "the frozen layer is missing"),
    ("dx through the frozen weight only", "dx = dout @ weight.T + dh @ a.T", "dx = dout @ weight.T + 0 * x",
     "the way through the update is missing"),
    ("dx through the update only", "dx = dout @ weight.T + dh @ a.T", "dx = dh @ a.T", "frozen means that weight"),
    ("the update's way subtracted", "+ dh @ a.T", "- dh @ a.T", "your dx"),
    ("dh without scale", "dh = scale * (dout @ b.T)", "dh = dout @ b.T", "scale is missing on the way back"),
    ("scale in da twice", "    rank = a.shape[1]\n", "    rank, dh = a.shape[1], scale * dh\n",
     ("your da", "7/10 times")),
    ("db without scale", "db = scale * (h", "db = (h", ("your db", "scale is missing")),
    ("db of x @ a and dh", "dout.reshape(-1, dout.shape[-1]))", "dout.reshape(-1, dout.shape[-1]) * 0)", "your db"),
    ("da of the first row of the batch", "x.reshape(-1, x.shape[-1]).T @ dh.reshape(-1, rank)", "x[0].T @ dh[0]",
     "your da"),
    ("gradients in another order", "return dx, da, db", "return dx, db, da", "shape"),
    ("a gradient for weight", "return dx, da, db", "return dx, x.reshape(-1, 6).T @ dout.reshape(-1, 8), da, db",
     "must return 3 gradients"),
]
