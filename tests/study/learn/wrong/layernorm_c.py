"""Wrong solutions of `layernorm_c`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
WRONG = [
    ("eps outside the root", "1 / sqrt(squares / C + 1e-5)", "1 / (sqrt(squares / C) + 1e-5)", "out"),
    ("over C - 1", "squares / C", "squares / (C - 1)", "is"),
    ("mean is not written", "        mean[n] = m;\n", "", ("mean", "nothing was written")),
    ("the last column is left out", "for (int c = 0; c < C; c++) result[c]",
     "for (int c = 0; c < C - 1; c++) result[c]", "never written"),
    ("one row too many", "n < B * T", "n <= B * T", "past its end"),
    ("no semicolon", "double m = sum / C;", "double m = sum / C", "error"),
]
