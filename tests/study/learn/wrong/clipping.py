"""Wrong solutions of `clipping`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
NORM = "norm = math.sqrt(sum(float(np.sum(np.square(grad.astype(np.float64)))) for grad in grads))"
RETURN = "return [grad * factor for grad in grads], norm"
WRONG = [
    ("a norm for each gradient", RETURN,
     "return [grad * (max_norm / max(1e-300, np.linalg.norm(grad))) if max_norm and np.linalg.norm(grad) > max_norm "
     "else grad for grad in grads], norm", "one factor"),
    ("numbers clipped one by one", RETURN,
     "return [np.clip(grad, -max_norm, max_norm) if max_norm else grad for grad in grads], norm",
     "keeps the direction"),
    ("no root", NORM, "norm = sum(float(np.sum(np.square(grad.astype(np.float64)))) for grad in grads)", "is 5"),
    ("the largest number", NORM, "norm = max(float(np.abs(grad).max()) for grad in grads)", "is 5"),
    ("sum of the norms", NORM, "norm = sum(float(np.linalg.norm(grad.astype(np.float64))) for grad in grads)", "is 5"),
    ("always scaled", "max_norm / norm if max_norm and norm > max_norm else 1.0",
     "max_norm / norm if max_norm and norm else 1.0", "never makes it longer"),
    ("the norm after clipping", RETURN, "return [grad * factor for grad in grads], norm * factor", "before clipping"),
    ("max_norm = 0 gives zeros", "if max_norm and norm > max_norm", "if norm > max_norm", "no clipping"),
    ("division by the norm of zeros", "factor = max_norm / norm if max_norm and norm > max_norm else 1.0",
     "factor = np.float64(1.0) if not max_norm else min(1.0, max_norm / np.float64(norm)) if norm else math.nan",
     "zeros"),
    ("squares in float32", "np.square(grad.astype(np.float64))", "np.square(grad)", "overflow"),
    ("float32 becomes float64", "grad * factor", "grad * np.float64(factor)", "stay float32"),
    ("in place", RETURN, "for grad in grads:\n        grad *= factor\n    return grads, norm", "left as they are"),
]
