"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("mean", "rows_of_dout.sum(axis=0)", "rows_of_dout.mean(axis=0)", "your dbias is the mean over rows"),
    ("sign", "dx = dout @ weight.T", "dx = -(dout @ weight.T)", "your dx: the sign is wrong"),
    ("no x", "rows_of_x.T @ rows_of_dout ", "(0 * rows_of_x + 1).T @ rows_of_dout ", "your dweight lacks x"),
    ("last sequence", "rows_of_x.T @ rows_of_dout ", "x[-1].T @ dout[-1] ",
     "your dweight counts the last sequence alone"),
    ("transposed", "dx = dout @ weight.T", "dx = weight @ dout", "in linear_backward (dx = weight @ dout"),
    ("dweight transposed", "return dx, dweight, dbias", "return dx, dweight.T, dbias",
     "dweight must have shape (6, 24): got (24, 6)"),
    ("two gradients", "return dx, dweight, dbias", "return dx, dweight",
     "must return 3 gradients (dx, dweight, dbias): got 2"),
    ("writes dout", "    dx = dout @", "    dout *= 1.0 + 1e-9\n    dx = dout @", "backward wrote into dout"),
    ("factor", "rows_of_dout.sum(axis=0) ", "rows_of_dout.sum(axis=0) * 2 ",
     "your dbias: 2 times the right gradient"),
]
