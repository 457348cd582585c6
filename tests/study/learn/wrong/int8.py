"""Wrong solutions of `int8`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
ROUNDED = "np.clip(np.rint(matrix / safe), -127, 127).astype(np.int8)"
WRONG = [
    ("one scale for all", "np.abs(matrix).max(axis=0)", "np.repeat(np.abs(matrix).max(), matrix.shape[1])",
     "one scale for each column"),
    ("a scale for each row", "np.abs(matrix).max(axis=0)", "np.abs(matrix).max(axis=1)[:, None]",
     "one scale for each column"),
    ("over 128", "np.float32(127)", "np.float32(128)", "over 127"),
    ("the largest, not the largest |w|", "np.abs(matrix).max(axis=0)", "matrix.max(axis=0)", "be it negative"),
    ("cut off", "np.rint(matrix / safe)", "matrix / safe", "round to nearest"),
    ("rounded down", "np.rint(", "np.floor(", "round to nearest"),
    ("halves up", "np.rint(matrix / safe)", "np.floor(matrix / safe + 0.5)", "to even"),
    ("0 / 0", "np.where(scales > 0, scales, np.float32(1)) ", "scales ", "a column of zeros"),
    ("scale 1 for zeros", ".astype(np.int8), scales\n", ".astype(np.int8), safe\n", "zeros has scale 0"),
    ("values left float", ".astype(np.int8), scales", ", scales", "quantize"),
    ("divided on the way back", "return values * scales", "return values / scales", "dequantize"),
    ("the scales twice", "(x @ values.astype(np.float32)) * scales", "(x @ dequantize(values, scales)) * scales",
     "once"),
    ("no scales", "(x @ values.astype(np.float32)) * scales", "x @ values.astype(np.float32)", "matmul"),
    ("x in int8", "(x @ values.astype(np.float32)) * scales",
     "(x.astype(np.int8) @ values).astype(np.float32) * scales", "matmul"),
]
