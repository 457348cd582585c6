"""Wrong solutions of `dpo`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
LOSS = "losses = -(1 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z)"
GRAD = "dchosen = dout * beta * (label_smoothing * right - (1 - label_smoothing) * wrong)"
WRONG = [
    ("no reference", "z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))", "z = beta * (chosen - rejected)",
     "the reference is missing"),
    ("the rejected answer is raised", "z = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))",
     "z = beta * (rejected - ref_rejected - chosen + ref_chosen)", "teaches the rejected"),
    ("no beta", "z = beta * (", "z = 1.0 * (", "beta is missing"),
    ("no label smoothing", LOSS, "losses = -log_sigmoid(z)", "the label smoothing is missing"),
    ("a reward, not a loss", LOSS,
     "losses = (1 - label_smoothing) * log_sigmoid(z) + label_smoothing * log_sigmoid(-z)", "the sign is wrong"),
    ("log of a sigmoid that is 0", LOSS,
     "losses = -(1 - label_smoothing) * np.log(1 / (1 + np.exp(-z))) - label_smoothing * np.log(1 / (1 + np.exp(z)))",
     "overflow"),
    ("exp overflows", "np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))", "-np.log1p(np.exp(-z))", "overflow"),
    ("no beta in the gradient", GRAD, GRAD.replace("dout * beta", "dout"), "the factor beta"),
    ("no label smoothing in the gradient", GRAD, "dchosen = -dout * beta * wrong", "the label smoothing is missing"),
    ("s(z) for s(-z)", GRAD, "dchosen = dout * beta * (label_smoothing - right)", "your dchosen"),
    ("both raised", "return dchosen, -dchosen", "return dchosen, dchosen", "the rejected answer's sign"),
    ("dout is ignored", GRAD, GRAD.replace("dout * ", ""), "dout"),
    ("1 - s(z) is 0 for large z", "right, wrong = np.exp(log_sigmoid(z)), np.exp(log_sigmoid(-z))",
     "right, wrong = np.exp(log_sigmoid(z)), np.exp(-z)", "your dchosen"),
]
