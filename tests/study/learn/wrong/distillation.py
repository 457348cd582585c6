"""Wrong solutions of `distillation`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
GRAD = "dlogits = (1 - weight) * hard + weight * temperature * (np.exp(soft) - p)"
WRONG = [
    ("no T^2", "weight * temperature ** 2 * soft_loss", "weight * soft_loss", "the factor T^2"),
    ("2 T, which is T^2 where T is 2", "temperature ** 2", "2 * temperature", "losses at T = 1, w = 1"),
    ("T, not T^2", "temperature ** 2", "temperature", "must be T^2, not T"),
    ("cross-entropy with the teacher", "(p * (soft_teacher - soft)).sum(axis=1)", "(p * -soft).sum(axis=1)",
     "the teacher's own entropy"),
    ("KL(Q || P)", "(p * (soft_teacher - soft)).sum(axis=1)", "(np.exp(soft) * (soft - soft_teacher)).sum(axis=1)",
     "the teacher's probabilities must be the weights"),
    ("log Q - log P", "(soft_teacher - soft)", "(soft - soft_teacher)", "the divergence's sign is wrong"),
    ("the cross-entropy is softened", "hard_loss = -logs[", "hard_loss = -soft[", "at temperature 1"),
    ("a sharp teacher", "log_softmax(teacher / temperature)", "log_softmax(teacher)", "divided by T, too"),
    ("w the other way round", "(1 - weight) * hard_loss + weight * temperature ** 2 * soft_loss",
     "weight * hard_loss + (1 - weight) * temperature ** 2 * soft_loss", "exchanged"),
    ("ignored rows count", "np.where(valid, (1 - weight) * hard_loss + weight * temperature ** 2 * soft_loss, 0)",
     "(1 - weight) * hard_loss + weight * temperature ** 2 * soft_loss", "out["),
    ("T^2 in the gradient", GRAD, GRAD.replace("temperature *", "temperature ** 2 *"), "one 1 / T comes from z / T"),
    ("no T in the gradient", GRAD, GRAD.replace("weight * temperature *", "weight *"), "the factor T of the soft part"),
    ("P - Q", GRAD, GRAD.replace("(np.exp(soft) - p)", "(p - np.exp(soft))"), "it must be Q - P"),
    ("no 1 at the target", "    hard[np.flatnonzero(valid), targets[valid]] -= 1", "    hard = hard",
     "the 1 at the target is missing"),
    ("ignored rows have a gradient", "np.where(valid, dout, 0)[:, None].astype(dout.dtype)", "dout[:, None]",
     "rows with target -1"),
    ("target -1 as an index", "hard[np.flatnonzero(valid), targets[valid]] -= 1",
     "hard[np.arange(len(targets)), targets] -= 0.5", "your dlogits"),
]
