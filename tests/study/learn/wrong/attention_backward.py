"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no sum", " - (dP * P).sum(axis=-1, keepdims=True)", "", "lacks the term of the softmax's sum"),
    ("no softmax", "P * (dP - (dP * P).sum(axis=-1, keepdims=True))", "dP", "is without the softmax's backward"),
    ("no scale", "scale = 1 / math.sqrt(HS)\n", "scale = 1\n", "lacks the scale, in dq and in dk"),
    ("scale in dq", "dq = scale * (dS @ k)", "dq = dS @ k", "lacks the scale in dq"),
    ("dk", "dS.swapaxes(-1, -2) @ q", "dS @ q", "lacks the transpose in dk"),
    ("exchanged", "in (dq, dk, dv)", "in (dk, dq, dv)", "has dq and dk exchanged"),
    ("no v", "in (dq, dk, dv)", "in (dq, dk)", "dqkv must have shape (2, 5, 18): got (2, 5, 12)"),
    ("dv without P", "dv = P.swapaxes(-1, -2) @ dout", "dv = dout + 0", "that is dv"),
]
