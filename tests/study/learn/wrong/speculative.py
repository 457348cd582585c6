"""Wrong solutions of `speculative`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
WRONG = [
    ("never more than the target's probability", "min(1.0, float(p[x] / q[x]))", "float(p[x])", "acceptance"),
    ("upside down", "min(1.0, float(p[x] / q[x]))", "min(1.0, float(q[x] / max(p[x], 1e-300)))", "acceptance"),
    ("not bounded", "min(1.0, float(p[x] / q[x]))", "float(p[x] / q[x])", "with probability 1"),
    ("kept if the target likes it better", "min(1.0, float(p[x] / q[x]))", "float(p[x] >= q[x])", "here one half"),
    ("the target itself as residual", "left = np.maximum(p - q, 0)", "left = p.copy()", "neither p nor |p - q|"),
    ("the absolute difference", "np.maximum(p - q, 0)", "np.abs(p - q)", "neither p nor |p - q|"),
    ("not normalised", "left / left.sum() if left.any()", "left if left.any()", "normalised"),
    ("0 / 0", "return left / left.sum() if left.any() else p.copy()", "return left / left.sum()", "not 0 / 0"),
    ("goes on after a rejection", "return list(proposed[:i]), residual(p[i], q[i])", "continue", "verify"),
    ("the rejected token is kept", "list(proposed[:i]), residual", "list(proposed[:i + 1]), residual", "wrong tokens"),
    ("after a rejection the target's own", "residual(p[i], q[i])", "p[i]", "wrong distribution of the next"),
    ("the residual of the first place", "residual(p[i], q[i])", "residual(p[0], q[0])", "of its own place"),
    ("no token after all kept", "p[len(proposed)]", "p[len(proposed) - 1]", "one more comes from p[k]"),
    ("kept at the acceptance itself", "if u[i] >= acceptance", "if u[i] > acceptance", "not below 0.5"),
    ("u on the wrong side", "if u[i] >= acceptance", "if u[i] < acceptance", "verify"),
]
