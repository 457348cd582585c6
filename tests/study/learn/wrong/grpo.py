"""Wrong solutions of `grpo`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
GRAD = "return dout * (-np.where(free, gain, 0) - beta * np.expm1(back))"
WRONG = [
    ("the maximum", "-np.minimum(gain, held)", "-np.where(gain > held, gain, held)", "the minimum is meant"),
    ("not clipped", "-np.minimum(gain, held)", "-ratio * advantages", "nothing is clipped"),
    ("always clipped", "-np.minimum(gain, held)", "-held", "moving back towards it must be rewarded"),
    ("a gain, not a loss", "-np.minimum(gain, held)", "np.minimum(gain, held)", "the sign is wrong"),
    ("no KL", "+ beta * (np.expm1(back) - back)", "+ 0 * back", "the KL penalty is missing"),
    ("the KL lowers the loss", "+ beta * (np.expm1(back) - back)", "- beta * (np.expm1(back) - back)", "wrong sign"),
    ("the plain estimate of KL", "(np.expm1(back) - back)", "-back", "may be negative"),
    ("KL the other way round", "back = ref_logp - logp", "back = logp - ref_logp", "it must be of ref_logp - logp"),
    ("the difference, not the ratio", "ratio = np.exp(logp - old_logp)", "ratio = 1 + logp - old_logp", "out"),
    ("the advantage's sign is lost", "held = ratio * advantages, np", "held = ratio * np.abs(advantages), np", "out"),
    ("clipped tokens have a gradient", GRAD, "return dout * (-gain - beta * np.expm1(back))", "must be 0"),
    ("the other side has it", GRAD, GRAD.replace("free,", "~free,"), "your dlogp"),
    ("no KL on the way back", GRAD, "return -dout * np.where(free, gain, 0)", "the KL penalty's part is missing"),
    ("KL with the wrong sign on the way back", GRAD, GRAD.replace("- beta", "+ beta"), "the wrong sign"),
    ("dout is ignored", GRAD, GRAD.replace("dout * ", ""), "dout"),
]
