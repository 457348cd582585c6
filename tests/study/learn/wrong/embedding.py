"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("repeated tokens", "np.add.at(dwte, tokens, dout)", "dwte[tokens] += dout",
     "counts only the last of repeated tokens"),
    ("set", "np.add.at(dwte, tokens, dout)", "dwte[tokens] = dout", "counts only the last of repeated tokens"),
    ("first sequence", "dout.sum(axis=0)", "dout[0]", "dwpe counts only the first sequence"),
    ("mean", "dout.sum(axis=0)", "dout.mean(axis=0)", "dwpe is the mean over the batch"),
    ("start", "+ wpe[start:start + T],", "+ wpe[:T],", "start is ignored"),
    ("no position", "wte[tokens] + wpe[start:start + T],", "wte[tokens],", "the position's row is not added"),
    ("small table", "np.zeros_like(wpe)", "np.zeros((T + start, wte.shape[1]), wte.dtype)",
     "dwpe must have shape (8, 6): got (7, 6)"),
    ("mask of repeats", "np.add.at(dwte, tokens, dout)",
     "for row in range(len(tokens)): dwte[tokens[row]] += dout[row]", "stands twice in one sequence only once"),
]
